"""Errors that the executor raises itself. What the user's code raises passes through unchanged."""


class ExecutionError(Exception):
    """Base of the executor's own errors."""


class CompilationError(ExecutionError, SyntaxError):
    """A cell does not compile. `__cause__` is the compiler's own error.

    Attributes:
        suggestion: the whole cell, corrected so that it compiles, or None.
    """

    suggestion: str | None = None


class AsyncContextError(ExecutionError, RuntimeError):
    """An event loop, or an execution, was needed where there is none."""


class NamespaceError(ExecutionError):
    """A name to bind is no string."""


class CancellationError(ExecutionError):
    """An execution was cancelled before it began to run."""


class LimitExceeded(ExecutionError, RuntimeError):  # noqa: N818 - says more than LimitError
    """The code went over one of the session's limits. The message names the limit and how to raise it."""
