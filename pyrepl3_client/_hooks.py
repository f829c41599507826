"""What a session does for its executions: the seam between `Flight` and whoever owns it."""

from collections.abc import Callable
from dataclasses import dataclass

from pyrepl3_client._connection import Connection
from pyrepl3_client._execution import Execution
from pyrepl3_client._journal import Record
from pyrepl3_client.errors import StoreError
from pyrepl3_schemas.messages import Error, Result

type Ended = Callable[[Execution, Result | Error, bool], None]
"""Takes the last message of an execution, in its turn, and whether it is not to be run again for its effect;
sees to it that the execution is finished."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the executions' session does for them."""

    wire: Callable[[], Connection]
    """Gives the connection to the worker that is there now."""
    record: Callable[[], Record]
    """Gives what calls and prompts are recorded in."""
    ended: Ended
    on_failure: Callable[[str, StoreError], None]
    """Takes the execution whose call or prompt could not be recorded."""
    diverged: Callable[[str, str], None]
    """Takes the execution that asked for something else than its record holds, and what."""
