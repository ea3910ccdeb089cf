"""Metrics and spans: what Hearth records of itself, in OpenTelemetry's data model."""

from server.telemetry.instruments import METRICS_CONTENT_TYPE, Gauges, Reading, Telemetry

__all__ = ["METRICS_CONTENT_TYPE", "Gauges", "Reading", "Telemetry"]
