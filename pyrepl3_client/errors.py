"""Everything the client raises, as one tree under `PyRepl3Error`."""

from pyrepl3_client.results import ErrorInfo, ExecutionResult
