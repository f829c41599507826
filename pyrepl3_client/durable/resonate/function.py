"""The durable function: promise-first, and nothing else.

It creates no loop, task or thread and touches no transport: it creates the promise that stands for the
execution, has the bridge submit the execution under it, and awaits it. Resonate suspends it there, and
runs it again from the top when the promise has settled, in this process or in the session's next owner.
"""

from datetime import timedelta
from typing import Final, Literal

import msgspec
from resonate.context import Context

from pyrepl3_client.durable.resonate.bridge import ProtocolBridge
from pyrepl3_client.durable.resonate.ids import execution_key

# A hundred years: a session may be left alone for as long as its user likes. (Resonate's default is a day.)
FOREVER: Final = timedelta(days=36_500)


class OutcomeRef(msgspec.Struct, frozen=True):
    """What a promise is resolved with: where the outcome is, and no part of it.

    The outcome itself holds what a worker chose and may be large: it is recorded beside the promise, as
    bytes, and never goes through Resonate's codec.
    """

    ref: str
    """The correlation key: `exec:{execution_id}`."""
    status: Literal["finished", "rejected"]
    size: int
    """Bytes of the encoded outcome."""

    @classmethod
    def of(cls, execution_id: str, outcome: bytes, *, rejected: bool) -> "OutcomeRef":
        """Refer to an outcome."""
        return cls(execution_key(execution_id), "rejected" if rejected else "finished", len(outcome))


async def async_execute(ctx: Context, execution_id: str, code_digest: str) -> OutcomeRef:
    """Submit one execution and await its promise; `code_digest` is an argument to be on record with it."""
    promise = ctx.promise(FOREVER)
    await ctx.get_dependency(ProtocolBridge).submit(execution_id, await promise.id())
    settled: OutcomeRef = await promise
    return settled
