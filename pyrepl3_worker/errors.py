"""What the executor raises by itself; what the user's code raises passes through unchanged."""


class ExecutionError(Exception):
    """Base of the executor's own errors."""


class CompilationError(ExecutionError, SyntaxError):
    """A cell does not compile. `__cause__` is the compiler's own error.

    Attributes:
        suggestion: the whole cell, mended so that it compiles, or None.
    """

    suggestion: str | None = None


class AsyncContextError(ExecutionError, RuntimeError):
    """Something asynchronous was asked for where no loop can serve it."""


class NamespaceError(ExecutionError):
    """The namespace was asked for something it does not do."""


class CancellationError(ExecutionError):
    """An execution was cancelled before it began to run."""


class LimitExceeded(ExecutionError, RuntimeError):  # noqa: N818 - says more than LimitError
    """The code went over one of the session's limits; the text names it and how to raise it."""
