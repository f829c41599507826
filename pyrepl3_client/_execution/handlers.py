"""The handlers of a session or of one execution: who hears output, sees displays, and answers prompts."""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from pyrepl3_client.config import checked_callable
from pyrepl3_schemas.messages import Display, Output

type OutputHandler = Callable[[Output], Awaitable[None] | None]
"""Takes output as it comes; an asynchronous one is awaited before it gets the next."""
type InputHandler = Callable[[str], Awaitable[str | None] | str | None]
"""Answers a prompt; None is the end of input. A synchronous one runs in a thread and may block."""
type DisplayHandler = Callable[[Display], Awaitable[None] | None]
"""Takes displays as they come; an asynchronous one is awaited before it gets the next."""


class Handlers(NamedTuple):
    """What is called for output, prompts and displays; None is nothing."""

    on_output: OutputHandler | None = None
    on_input: InputHandler | None = None
    on_display: DisplayHandler | None = None

    def or_else(self, others: "Handlers") -> "Handlers":
        """Return these handlers, and the others in the place of those that are missing."""
        return Handlers(
            self.on_output or others.on_output,
            self.on_input or others.on_input,
            self.on_display or others.on_display,
        )


NO_HANDLERS: Final = Handlers()


def make_handlers(
    on_output: OutputHandler | None, on_input: InputHandler | None, on_display: DisplayHandler | None
) -> Handlers:
    """Return handlers as one object: mostly there are none, so none is made for that.

    Raises:
        TypeError: one cannot be called.
    """
    if on_output is None and on_input is None and on_display is None:
        return NO_HANDLERS
    return Handlers(
        checked_callable("on_output", on_output),
        checked_callable("on_input", on_input),
        checked_callable("on_display", on_display),
    )
