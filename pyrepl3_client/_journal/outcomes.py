"""The outcome of an execution as it is recorded: bounded, and plain data throughout.

An outcome is always *resolved* data. A worker chooses what stands in it, and Resonate's codec unpickles
what a promise is rejected with, so nothing of a worker's ever goes that way.
"""

from typing import Final, Literal

import msgspec

from pyrepl3_client.errors import DeathCertificate, ReplayDivergence, StoreError, StoreFull, make_worker_died
from pyrepl3_schemas.display_budget import DisplayBudget
from pyrepl3_schemas.head_tail import shorten_to_bytes
from pyrepl3_schemas.messages import Display, Error, Output, Result

RECORDED_BYTES: Final = 256 * 1024
"""Most bytes of each stream that a record keeps."""
RECORDED_DISPLAY_BYTES: Final = 16 * 1024 * 1024
"""Most bytes of displays that a record keeps of one execution; in place of more stand their placeholders."""


class RecordedOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an execution wrote, as far as the record keeps it."""

    stdout: str = ""
    stderr: str = ""
    displays: list[Display] = []
    bound: int = RECORDED_BYTES
    """Bytes of each stream that are kept at most: their head and their tail."""
    truncated: bool = False
    """Whether anything is missing, here or already in what the worker sent."""


class EndedOutcome(msgspec.Struct, frozen=True, omit_defaults=True, tag="ended"):
    """It ran to its end, well or not."""

    last: Result | Error
    written: RecordedOutput = RecordedOutput()
    attempts: int = 1
    run: str = ""
    """The name of its last run."""


class Rejected(msgspec.Struct, frozen=True, omit_defaults=True, tag="rejected"):
    """The client gave it up, and says why. It left no mark on the namespace, unless its record was full."""

    kind: Literal["worker_died", "replay_divergence", "store_full"]
    what: str
    certificate: DeathCertificate | None = None
    attempts: int = 1
    written: RecordedOutput = RecordedOutput()
    """What it had written before."""
    running: tuple[str, ...] = ()
    """The ids of the executions that were lost with it; empty if it was alone."""
    run: str = ""
    """The name of its last run; empty if it had none."""

    def error(self, execution_id: str) -> Exception:
        """Return it as the error that the caller gets."""
        if self.kind == "replay_divergence":
            return ReplayDivergence(self.what)
        if self.kind == "store_full":
            return StoreFull(self.what)
        return make_worker_died(self.what, self.certificate, self.running or (execution_id,), self.attempts)


type Outcome = EndedOutcome | Rejected

_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(EndedOutcome | Rejected)


def encode_outcome(outcome: Outcome) -> bytes:
    """Return an outcome as MessagePack."""
    return _encode(outcome)


def decode_outcome(data: bytes) -> Outcome:
    """Read an outcome.

    Raises:
        StoreError: these bytes are no outcome.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoreError(f"the store holds a damaged outcome: {error}; restore a backup") from error


def record_output(
    stdout: str, stderr: str, displays: tuple[Display, ...], *, truncated: bool, bound: int = RECORDED_BYTES
) -> RecordedOutput:
    """Keep what was written, within `bound` bytes a stream."""
    reason = f"the record keeps {bound:,}"
    out, out_cut = shorten_to_bytes(stdout, bound, reason)
    err, err_cut = shorten_to_bytes(stderr, bound, reason)
    kept: list[Display] = []
    if displays:
        budget = DisplayBudget(RECORDED_DISPLAY_BYTES, f"the record keeps {RECORDED_DISPLAY_BYTES:,}")
        kept = [admitted for display in displays if (admitted := budget.admit(display)) is not None]
        truncated = truncated or budget.cut
    return RecordedOutput(out, err, kept, bound, truncated or out_cut or err_cut)


def replay_output(execution_id: str, written: RecordedOutput) -> list[Output | Display]:
    """Return what was written as messages again: displays, then both streams, each in one piece."""
    messages: list[Output | Display] = list(written.displays)
    if written.stdout:
        messages.append(Output(stream="stdout", data=written.stdout, execution_id=execution_id))
    if written.stderr:
        messages.append(Output(stream="stderr", data=written.stderr, execution_id=execution_id))
    return messages
