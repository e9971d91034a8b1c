"""Every metric, a module a subject. Names of the seed project and of OpenTelemetry GenAI are kept.

``python -m gateway.telemetry`` writes docs/metrics.md.
"""

from __future__ import annotations

from gateway.telemetry.telemetry import Telemetry

__all__ = ["Telemetry"]
