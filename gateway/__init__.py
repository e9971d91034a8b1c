"""The gateway: HTTP surface, the pipeline of seven stages, settings, telemetry and the CLI."""
