"""What a session tells its operator: logs, events, OpenTelemetry; with real workers."""
