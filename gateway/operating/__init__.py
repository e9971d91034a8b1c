"""kiki as a service of the machine: systemd's units, launchd's agents."""
