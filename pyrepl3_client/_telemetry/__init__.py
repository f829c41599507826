"""What a session tells its operator: one place where facts are announced, and what listens there.

events    the facts, as structured data: what `on_event` gets
log       which logger, level and line each of them has
handlers  hands them to `on_event`, in order, beside the session and never in its way
announcer `Telemetry`, where all others announce what happens; feeds the log, the handlers and OpenTelemetry
spans     OpenTelemetry's spans and metrics, by its API package alone, where the program uses it
"""
