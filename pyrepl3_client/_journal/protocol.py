"""The protocols `Record` and `Journal`, between sessions and stores, and the data in them.

`MemoryJournal` keeps a `Record` in this process; `pyrepl3_client.durable` offers a `Journal`, in a store,
with every execution a durable function of Resonate's. A journal is opened by the owner of the session,
and belongs to that owner alone until `close`.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from hashlib import sha256
from typing import Final, Literal, Protocol, get_args

import msgspec

from pyrepl3_client._log import fields, write
from pyrepl3_client.errors import StoreError
from pyrepl3_schemas.confinement import Level
from pyrepl3_schemas.messages import ResultMode, StreamName, Unsaved

_logger: Final = logging.getLogger("pyrepl3.store")

RESET = "(reset)"
"""The checkpoint that stands for a `restart` or a `restore`: nothing before it counts any more."""

TEXT_PART_CHARACTERS: Final = 256 * 1024
"""Of all parts of a text but the last: so it is known in which part a character is."""

type OnError = Literal["continue", "stop_queue"]
"""What becomes of the executions that are queued behind one that fails."""

type Status = Literal["started", "finished", "rejected"]


class Spec(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What is to be run, and how: enough to run it again in another process."""

    code: str
    timeout: float | None = None
    result_mode: ResultMode = "last_expr_or_assign"
    store_history: bool = True
    filename: str = ""
    """The name of the file that the code is from; empty for a name made of the code."""
    first_line: int = 1
    """The number that the code's first line has there."""
    on_error: OnError = "continue"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One execution of a session's history. `seq` counts from 1, in the order of submission."""

    seq: int
    execution_id: str
    spec: Spec
    status: Status = "started"
    attempts: int = 0
    """How often a worker's or a client's death has cost it a run."""


class CallRecord(msgspec.Struct, frozen=True):
    """An input or capability call: its intent, and once it is known its outcome.

    `outcome` is an encoded `CallResponse` or `InputResponse`.
    """

    call_id: str
    name: str
    """The capability's, or `input`."""
    digest: str
    """Of the arguments, or of the prompt."""
    outcome: bytes | None = None
    attempt: int = 1


class SavedCheckpoint(msgspec.Struct, frozen=True):
    """A namespace as it was after execution number `after_seq`.

    Only the worker reads `manifest`; an empty one is the empty namespace.
    """

    checkpoint_id: str
    after_seq: int
    manifest: bytes
    digests: tuple[str, ...]
    """Of the blobs it consists of: SHA-256, in hexadecimal."""
    unsaved: tuple[Unsaved, ...] = ()


class History(msgspec.Struct, frozen=True):
    """What a session that is opened again starts from."""

    checkpoint: SavedCheckpoint | None
    """The newest one: of the highest `after_seq`, and of those the last saved."""
    entries: tuple[Entry, ...]
    """The executions after it, in order, whatever their status; and older ones that have not ended."""


class BridgeMetrics(msgspec.Struct, frozen=True):
    """What the bridge has done since its session was opened."""

    pending: int
    """Executions that have no outcome yet."""
    high_water: int
    """The most of them at one time."""
    submissions: int
    """How often an execution was handed to the session."""
    replays: int
    """How often a durable function came again, and was given no new submission."""


class TextPart(msgspec.Struct, frozen=True):
    """A part of what an execution wrote to one stream, where its outcome does not hold all of that."""

    data: bytes
    """UTF-8, of `TEXT_PART_CHARACTERS` characters; the last part may have fewer, or none."""
    end: str | None = None
    """None: more follows. Empty: this is the last part. Else why what followed is not kept."""


class TextSize(msgspec.Struct, frozen=True):
    """How much is kept of what an execution wrote to one stream: its beginning."""

    characters: int
    missing: str = ""
    """Why that is not all of it; empty if it is."""


class OnTrouble(Protocol):
    """Takes what could not be done in the store beside what its callers are told."""

    def __call__(
        self, what: str, error: Exception, *, lost: bool = False, execution_id: str | None = None
    ) -> None:
        """Take it.

        Args:
            what: in words.
            error: what the store said.
            lost: whether something is lost by it; else it is tried again, or costs only time.
            execution_id: the execution that it is about, if it is about one.
        """
        ...


def log_trouble(what: str, error: Exception, *, lost: bool = False, execution_id: str | None = None) -> None:
    """Log trouble with a store that no session announces. See `OnTrouble`."""
    level = logging.ERROR if lost else logging.WARNING
    write(_logger, level, "%s: %s", what, error, extra=fields(execution=execution_id))


class Record(Protocol):
    """The record of one session. Everything is called on the event loop's thread.

    Every method raises `StoreError` when the store cannot be read or written, or when the session has
    been taken over by another owner; nothing has been recorded then.
    """

    async def load(self) -> History:
        """Return what the session starts from."""
        ...

    async def entries(self, up_to_seq: int) -> list[Entry]:
        """Return all executions up to a number, in order."""
        ...

    async def succeeded(self, execution_id: str) -> bool | None:
        """Return whether an execution ended without an error; None if it did not run to its end."""
        ...

    async def add_death(self, execution_id: str) -> int:
        """Count a death that cost an execution its run; return the count so far."""
        ...

    # --- calls ---

    async def calls(self, execution_id: str) -> dict[str, CallRecord]:
        """Return the recorded calls of an execution by their ids, in the order of their intents."""
        ...

    async def begin_call(self, execution_id: str, call: CallRecord) -> CallRecord | None:
        """Record that a call is about to be made; return the call of that id that is on record already."""
        ...

    async def retry_call(self, execution_id: str, call_id: str) -> int:
        """Record that a call without outcome is made again; return the number of the attempt."""
        ...

    async def finish_call(self, execution_id: str, call_id: str, outcome: bytes) -> None:
        """Record a call's outcome, before the worker sees it."""
        ...

    # --- checkpoints ---

    async def save(self, checkpoint: SavedCheckpoint, blobs: Mapping[str, bytes]) -> None:
        """Store a checkpoint in place of one of the same id, with those of its blobs that are new.

        Raises:
            StoreError: a blob is missing, or its digest is of other data.
        """
        ...

    async def checkpoint(self, checkpoint_id: str) -> SavedCheckpoint | None:
        """Look up a checkpoint."""
        ...

    async def checkpoint_ids(self) -> list[str]:
        """Return the names of all checkpoints, from the earliest point of the history on."""
        ...

    async def blobs(self, digests: Collection[str]) -> dict[str, bytes]:
        """Read blobs.

        Raises:
            StoreError: one is missing.
        """
        ...


class Journal(Record, Protocol):
    """The record of one session in a store, which outlives this process."""

    @property
    def metrics(self) -> BridgeMetrics:
        """What the bridge between its promises and the session has done."""
        ...

    @property
    def store_path(self) -> str | None:
        """The file that it is in, on this machine; None if it is not in a file."""
        ...

    @property
    def opening(self) -> int:
        """How often the session has been opened, this time included: no two openings have the same number."""
        ...

    @property
    def takes_running_text(self) -> bool:
        """Whether texts may be recorded while they grow, under keys of their own: see `put_text`."""
        ...

    async def level(self) -> Level | None:
        """Return the confinement level at which the session's code ran last; None if none is on record."""
        ...

    async def record_level(self, level: Level) -> None:
        """Record the confinement level at which the session's code runs from now on."""
        ...

    async def outcome(self, execution_id: str) -> bytes | None:
        """Return a recorded outcome, None if there is none."""
        ...

    async def execute(
        self, execution_id: str, spec: Spec, submit: Callable[[Entry], None]
    ) -> tuple[bytes, bool]:
        """Record an execution, have it run once, and return its recorded outcome.

        Calls that are made in one order are recorded in that order. `submit` is called at most once,
        when the execution is recorded and has no outcome yet, with its entry; the caller sees to
        it that `settle` follows. An execution that `load` gave without an outcome is taken up by this
        same method.

        Returns:
            The outcome as `settle` got it, and whether it was there before.

        Raises:
            ExecutionIdConflict: the id stands for other code; the text shows where both differ.
            StoreError: the store failed, or the journal was closed; the execution stays as recorded.
        """
        ...

    async def settle(self, execution_id: str, outcome: bytes, *, rejected: bool) -> None:
        """Record an outcome, which lets its `execute` return. The first one stays."""
        ...

    async def put_text(
        self, execution_id: str, stream: StreamName, n: int, part: TextPart, max_bytes: int
    ) -> bool:
        """Store part `n`, from 1 on, of what an execution wrote to a stream, in place of one that is there.

        Args:
            execution_id: of a recorded execution; or where the store `takes_running_text`, that with a colon
                and anything behind it, for a text of its own.
            stream: which.
            n: the part's number; those before it are there.
            part: a part that is empty is always stored.
            max_bytes: of all texts of the session. Where there are more, those of the oldest executions go.

        Returns:
            Whether there is room for it; nothing is stored if not.
        """
        ...

    async def text_keys(self, prefix: str) -> list[str]:
        """Return under which keys that begin with a prefix there are texts."""
        ...

    async def drop_text(self, key: str) -> None:
        """Drop what an execution wrote, both streams."""
        ...

    async def text_size(self, execution_id: str, stream: StreamName) -> TextSize | None:
        """Return how much is kept of what an execution wrote to a stream; None if nothing is."""
        ...

    async def text_part(self, execution_id: str, stream: StreamName, n: int) -> TextPart | None:
        """Return part `n` of what an execution wrote to a stream; None if it is not there, or no more."""
        ...

    async def exempt_next_death(self, execution_id: str) -> None:
        """Record that the next death costs an execution nothing: it is only its session that is closed."""
        ...

    async def close(self) -> None:
        """Release the session: another owner may have it at once. Executions under way stay recorded.

        Their `execute` raises `StoreError`. Idempotent, and never raises.
        """
        ...


def text_size(parts: int, last: TextPart) -> TextSize:
    """Return how long a text is, by the number of its parts and the last one of them."""
    characters = (parts - 1) * TEXT_PART_CHARACTERS + len(last.data.decode())
    missing = "its end is not on record" if last.end is None else last.end
    return TextSize(characters, missing)


def recorded_level(text: str) -> Level:
    """Return a confinement level as it is on record.

    Raises:
        StoreError: it is none.
    """
    for level in get_args(Level.__value__):
        if text == level:
            return level
    raise StoreError(
        f"the record names a confinement level {text!r}, which this version does not know: open it with a "
        "newer one"
    )


def blob_digest(data: bytes | memoryview) -> str:
    """Return the name under which `data` is stored: its SHA-256, in hex, as the worker names it."""
    return sha256(data).hexdigest()
