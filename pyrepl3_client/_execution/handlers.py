"""The types of the functions that a session's owner passes in: for output and for prompts."""

from collections.abc import Awaitable, Callable

from pyrepl3_schemas.messages import Output

type OutputHandler = Callable[[Output], Awaitable[None] | None]
"""Takes output as it comes; an asynchronous one is awaited before it gets the next."""
type InputHandler = Callable[[str], Awaitable[str | None] | str | None]
"""Answers a prompt; None is the end of input. A synchronous one runs in a thread and may block."""
