"""One session by name in a pool: opened once for all who want it, held by several, passivated when idle."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pyrepl3_client._execution.queue import Capabilities
from pyrepl3_client._session.options import Durability
from pyrepl3_client._session.shared import SharedSession
from pyrepl3_client.config import WorkerConfig
from pyrepl3_schemas.executor_config import shown
from pyrepl3_schemas.messages import Adjustments

type Key = tuple[object, str]
"""The place of a store, and a session's name in it."""


@dataclass(frozen=True, slots=True)
class NamedOptions:
    """What a session by name is to be; each who asks for it has to say the same."""

    key: Key
    config: WorkerConfig
    change: Adjustments | None
    """What a warm worker has to change for that configuration."""
    durability: Durability
    capabilities: Capabilities
    why_kept: str = ""
    """Why it is never passivated; empty if it can be."""

    @property
    def name(self) -> str:
        """The session's name, which is its id."""
        return self.key[1]

    def check_same(self, other: "NamedOptions") -> None:
        """Refuse options that the live session does not have: after its return it would have them.

        Raises:
            ValueError: names the argument and both values.
        """
        ours, theirs = self.durability, other.durability
        for what, live, asked in (
            ("config", self.config, other.config),
            ("recovery", ours.recovery, theirs.recovery),
            ("max_attempts", ours.max_attempts, theirs.max_attempts),
        ):
            if live != asked:
                raise ValueError(
                    f"session {self.name!r} is live with {what}={shown(live)}, and is asked for with "
                    f"{shown(asked)}: ask for it alike everywhere, or end it by pool.close_session() before"
                )


class NamedSession:
    """The session of one name, while it is live, being opened or being closed."""

    def __init__(self, options: NamedOptions) -> None:
        """Be not wanted yet."""
        self.options = options
        self.wanted = 0
        """How many hold it, or wait for it."""
        self.held = 0
        """How many hold it."""
        self.uses = 0
        """How many have held it so far."""
        self.shared: SharedSession | None = None
        """The live session."""
        self.opening: asyncio.Task[SharedSession] | None = None
        self.has_place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when what opens it waits for room no longer."""
        self.saving: asyncio.Task[None] | None = None
        """Looks whether it can be passivated. It may be used meanwhile."""
        self.watching: asyncio.Task[None] | None = None
        """Waits until nothing of it runs; it is not held."""
        self.closing: asyncio.Task[None] | None = None
        self.idle_timer: asyncio.TimerHandle | None = None
        self.used_at = 0.0
        """When it was given back last, on the loop's clock."""
        self.kept = ""
        """Why it could not be passivated when that was tried last."""
        self.look_again_at = 0.0
        """When that is worth another try, on the loop's clock."""

    def is_idle(self, now: float) -> bool:
        """Return whether it is live and not wanted, nothing runs, and passivating it is worth a try."""
        shared = self.shared
        return (
            shared is not None
            and not self.options.why_kept
            and not self.wanted
            and self.saving is None
            and self.closing is None
            and now >= self.look_again_at
            and not shared.busy
        )

    def stop_timer(self) -> None:
        """Have nothing done about it being idle."""
        if self.idle_timer is not None:
            self.idle_timer.cancel()
            self.idle_timer = None


type StartNamed = Callable[[NamedOptions, Callable[[], None]], Awaitable[SharedSession]]
"""Opens a session by name; the function is called when that is closed."""
