"""Who we are measured beside. Nothing here is imported before it is asked for, so none is required.

echo        an asyncio child that echoes frames: what the pipes and loops cost alone
pipe        a bare child that writes on demand: what moving bytes costs alone
floor       a bare `import asyncio, msgspec`: what starting Python costs alone
ipykernel   through jupyter_client, as notebooks and agents use it
execnet     a popen gateway, as pytest-xdist uses it
monty       pydantic-monty's pool of workers
local_connection  Resonate's own store in memory, under a durable function like ours
"""

import importlib
from types import ModuleType


class NoFigureError(Exception):
    """A peer has no figure to show; the text says why, for the table."""


class NotInstalledError(NoFigureError):
    """A peer that this environment does not have."""


def load(module: str) -> ModuleType:
    """Import a peer's module.

    The caller states, as a protocol, the part of it that it uses: type checks then do not depend on
    the peer being there, nor on how well it is typed.

    Raises:
        NotInstalledError: it, or something that it needs, is not there.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise NotInstalledError("not installed") from error
