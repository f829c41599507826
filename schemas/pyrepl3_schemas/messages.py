"""Every message of the protocol, as frozen tagged structs.

`ToWorker` and `FromWorker` are the two unions that the codec decodes; a body that is none of them is
a protocol error. Unknown map keys are ignored, so fields may be added. Durations are in seconds,
sizes in bytes, counts start at 0, and the client chooses ids, unless a field says otherwise.

The file is long because it is a list: all messages are here.
"""

import msgspec

from pyrepl3_schemas.executor_config import ExecutorConfig
from pyrepl3_schemas.field_types import (
    Bytes,
    CancelReason,
    ChangeKind,
    ClearMode,
    ErrorKind,
    Id,
    LineNumber,
    ProgressStage,
    ReportPart,
    ResultMode,
    Seconds,
    Share,
    StreamName,
    TimeLimit,
)

type Value = msgspec.Raw | msgspec.UnsetType


def _snake_case(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name).lstrip("_")


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """The base of structs that stand inside a message."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag=_snake_case):
    """The base of all messages, one a frame; `type` is the class's name in snake case."""


# --- parts ------------------------------------------------------------------------------------------


class CapabilitySpec(Part, frozen=True):
    """A host function that the session's code may call by name."""

    name: str
    signature: str = "(*args, **kwargs)"
    doc: str = ""
    awaitable: bool = False
    """Whether a call gives an awaitable, as an `async def` does; else it blocks and gives the value."""


class Frame(Part, frozen=True):
    """One line of a traceback. Lines count from 1, columns (in characters) from 0."""

    filename: str
    lineno: int
    name: str
    line: str = ""
    end_lineno: int | None = None
    colno: int | None = None
    end_colno: int | None = None


class ExceptionData(Part, frozen=True):
    """An exception in the chain of another, or in its group."""

    exception: str
    message: str
    notes: list[str] = []
    frames: list[Frame] = []
    cause: "ExceptionData | None" = None
    members: list["ExceptionData"] = []


class CallError(Part, frozen=True):
    """Why a host function returned no value: the exception's type name and text, and what hangs on it."""

    exception: str
    message: str
    notes: list[str] = []
    cause: "CallError | None" = None
    members: list["CallError"] = []
    """The exceptions of a group."""
    module: str = ""
    """The module of the exception's type. The code gets that type if it has the module."""


class RequestError(Part, frozen=True):
    """Why a `request` has no answer: an exception's type name and text."""

    exception: str
    message: str


class Unsaved(Part, frozen=True):
    """A name that a checkpoint could not save or bring back, and why."""

    name: str
    type_name: str
    reason: str
    as_of: int | None = None
    """The number of the cell after which it had the value that is kept of it; None if none is kept. Not in
    protocol 1."""


class Variable(Part, frozen=True):
    """A name of the session's namespace."""

    name: str
    type_name: str
    repr: str
    size: int | None = None
    """Bytes: of an array's or table's data, or of a built-in object without its members."""
    length: int | None = None
    """Members of a built-in container, characters of a text, rows of an array or table. Not in protocol 1."""
    shape: list[int] | None = None
    """Of an array or table. Not in protocol 1."""
    dtype: str = ""
    """Of an array or a column. Not in protocol 1."""


class Change(Part, frozen=True):
    """What a cell has done to one name of the namespace."""

    name: str
    kind: ChangeKind
    type_name: str = ""
    summary: str = ""
    """The value as it is now, in a few words; empty if the name is gone."""
    size: int | None = None
    """About how many bytes it takes."""


class Changes(Part, frozen=True):
    """What a cell has done to the namespace. What it has bound to an equal value is no change."""

    found: list[Change] = []
    unknown: list[str] = []
    """Names of what may have been changed in place: whether it was cannot be known, or not in time."""
    truncated: bool = False
    """Whether there are more."""


class Metrics(Part, frozen=True):
    """The specification's ExecutionMetrics, and the other counts of a session.

    `duration_buckets` is a histogram: bucket `i` counts executions that took less than 2**i
    microseconds and at least half of that (bucket 0: less than 1 µs).
    """

    total_executions: int
    successful_executions: int
    failed_executions: int
    total_duration: Seconds
    duration_buckets: list[int]
    mode_distribution: dict[str, int]
    cache_hits: int
    cache_misses: int
    cache_hit_rate: Share
    ast_transforms: int
    active_tasks: int
    tasks_created: int
    output_bytes: int


class Adjustments(Part, frozen=True):
    """What a worker changes before any code of its session runs: it was started before that was known.

    Limits are as those that it was started with, and can only be lowered; None leaves one as it is.
    """

    environment: dict[str, str] = {}
    """Variables to set."""
    unset: list[str] = []
    """Variables to remove."""
    directory: str = ""
    """The directory to enter; empty stays where it is."""
    max_processes: int | None = None
    max_memory_bytes: int | None = None
    max_cpu_seconds: int | None = None
    max_open_files: int | None = None
    max_file_bytes: int | None = None


# --- to the worker ----------------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """The first frame to a worker."""

    protocol: int
    session_id: Id
    incarnation: int = 1
    config: ExecutorConfig = ExecutorConfig()
    capabilities: list[CapabilitySpec] = []
    work_directory: str = ""
    """A directory that is the session's alone, if any: code starts in it, and checkpoints hold it."""
    report: list[ReportPart] = []
    """What a `result` is to hold beyond the value: parts that are made on request. Not in protocol 1."""
    max_rest_bytes: Bytes = 0
    """Bytes of an execution's output past its head that are to come as `output_rest`. Not in protocol 1."""
    adjust: Adjustments | None = None
    """What the worker is to change of its start, if anything. Not in protocol 1."""


class Execute(Message, frozen=True, gc=False):
    """Run code. Answered by exactly one `result` or `error`, after all its `output`."""

    execution_id: Id
    code: str
    timeout: TimeLimit | None = None
    result_mode: ResultMode = "last_expr_or_assign"
    replay: bool = False
    store_history: bool = True
    filename: str = ""
    """The name of the file that the code is from; empty for a name made of the code. Not in protocol 1."""
    first_line: LineNumber = 1
    """The number that the code's first line has in tracebacks. Not in protocol 1."""


class InputResponse(Message, frozen=True):
    """The answer to an `input`: a line without its newline, or end of file, or an error's text."""

    input_id: str
    data: str | None = None
    eof: bool = False
    error: str | None = None


class CallResponse(Message, frozen=True):
    """The outcome of a `call`: a MessagePack value, or an error."""

    call_id: str
    value: Value = msgspec.UNSET
    error: CallError | None = None


class Offer(Message, frozen=True):
    """Let the code call a host function from now on, in place of one of the same name. Not in protocol 1."""

    name: str
    signature: str = "(*args, **kwargs)"
    doc: str = ""
    awaitable: bool = False


class Withdraw(Message, frozen=True):
    """Take the name of a host function away from the code. Not in protocol 1."""

    name: str


class Cancel(Message, frozen=True):
    """Stop an execution. Send the wake-up signal (SIGURG) after it, to reach code that holds the loop."""

    execution_id: Id
    reason: CancelReason = "cancelled"
    timeout: TimeLimit | None = None
    """The limit in seconds that was passed, for the error's text, where the client keeps the time."""


class Checkpoint(Message, frozen=True):
    """Ask for the namespace as bytes."""

    checkpoint_id: Id
    known: list[str] = []
    """Digests of the blobs that the client has already, and that need not be sent again."""
    timeout: TimeLimit | None = None
    """Seconds that objects' own code may take; None means the worker's default."""
    total_timeout: TimeLimit | None = None
    """Seconds that everything may take, plain data too; None means no limit."""


class Restore(Message, frozen=True):
    """Fill the namespace from a checkpoint's bytes."""

    checkpoint_id: Id
    data: bytes = b""
    blobs: dict[str, bytes] = {}
    """Contents of blobs by their digests."""
    timeout: TimeLimit | None = None
    """Seconds that objects' own code may take, as for a checkpoint."""
    history: bool = True
    """Whether to restore `In`, `Out` and the numbers of cells too."""
    keep: list[str] = []
    """Names of variables that stay as they are, whatever the checkpoint has for them."""


class Complete(Message, frozen=True):
    """Ask for completions at `cursor` (a character offset into `code`)."""

    code: str
    cursor: int
    request_id: Id = ""


class Inspect(Message, frozen=True):
    """Ask about the name at `cursor`; if `code` is empty, about the whole namespace."""

    code: str
    cursor: int
    request_id: Id = ""


class Ping(Message, frozen=True):
    """Ask whether the worker responds."""

    nonce: int = 0


class GetStats(Message, frozen=True, tag="stats"):
    """Ask for the session's metrics."""

    request_id: Id = ""


class Request(Message, frozen=True):
    """Ask for something by its kind. Answered by one `response`, whatever runs. Not in protocol 1."""

    request_id: Id
    kind: str
    body: Value = msgspec.UNSET
    """What the kind says. One above 1 MiB is left out, and is the first part."""
    parts: list[Bytes] = []
    """How many bytes each of the parts has that follow, in order, as chunks."""


class Chunk(Message, frozen=True):
    """Up to 1 MiB of a part of a request or response. Not in protocol 1.

    Who gets one sends a chunk of the same `seq` without data back: at most eight are under way.
    """

    request_id: Id
    seq: int
    last: bool = False
    """The last chunk of all. Of one without data: no more is sent, or wanted."""
    data: memoryview = memoryview(b"")


class Shutdown(Message, frozen=True):
    """End the session: cancel what runs, clean up for at most `grace` seconds, exit with status 0."""

    reason: str = ""
    grace: Seconds = 2.0


# --- from the worker --------------------------------------------------------------------------------


class Ready(Message, frozen=True):
    """The worker's answer to `hello`."""

    protocol: int
    pid: int
    python: str
    max_frame_bytes: int
    features: list[str] = []
    confinement: list[str] = []


class Output(Message, frozen=True, gc=False):
    """Text that the code wrote.

    `late` marks late output: text that a task or thread wrote after its execution had ended. The last two
    fields say how many bytes that were written straight to fds 1 and 2 were waiting when this text was
    sent. A client that reads those pipes itself delivers so many of them first.
    """

    stream: StreamName
    data: str
    execution_id: str | None = None
    late: bool = False
    captured_stdout: Bytes = 0
    captured_stderr: Bytes = 0


class OutputRest(Message, frozen=True, gc=False):
    """Text past the head of an execution's output, in its order among `output`. Not in protocol 1.

    Sent only where `hello` has `max_rest_bytes`; the client then cuts by itself. Past so many bytes the
    worker keeps the last part back until the execution ends, and says how much is left out before it.
    """

    stream: StreamName
    data: str
    execution_id: str
    missing: Bytes = 0
    """Bytes of output that are left out before this text."""
    captured_stdout: Bytes = 0
    captured_stderr: Bytes = 0
    """As in `output`."""


class Display(Message, frozen=True):
    """A rich object: its representations by MIME type, as text (binary types in base64).

    With `clear`, no object: what the execution has written and displayed before is to be shown no more.
    """

    data: dict[str, str]
    execution_id: str | None = None
    metadata: dict[str, str] = {}
    display_id: str | None = None
    """A name under which what is shown can be replaced, in any execution of the session."""
    update: bool = False
    """Whether this replaces what is shown under `display_id`."""
    late: bool = False
    """Whether a task or thread has displayed it after its execution had ended. Not in protocol 1."""
    clear: ClearMode = ""
    """`now`, or `wait`: when the next display or output comes. Not in protocol 1."""


class Input(Message, frozen=True):
    """The code asks its user for a line. Answered by one `input_response`."""

    input_id: str
    execution_id: str
    prompt: str = ""
    password: bool = False


class Call(Message, frozen=True):
    """The code calls a host function. Answered by one `call_response`."""

    call_id: str
    execution_id: str
    capability: str
    args: msgspec.Raw
    kwargs: msgspec.Raw


class Abandoned(Message, frozen=True):
    """The code no longer waits for the answer to a `call` or `input`. Not in protocol 1."""

    call_id: str
    """The `call_id` or `input_id`."""
    execution_id: str


class Result(Message, frozen=True, gc=False):
    """An execution succeeded.

    `value` is there if the value has a plain form (see `values`) that fits into a frame; else `value_note`
    says why not. `repr` and `type_name` are always there; they are empty if the execution has no value.
    """

    execution_id: str
    mode: str
    value: Value = msgspec.UNSET
    repr: str = ""
    type_name: str = ""
    value_note: str = ""
    data: dict[str, str] = {}
    """If `hello` asks for it: the value's representations by MIME type, as in a `display`; empty if its type
    has none but its repr. `text/plain` is left out where it is the repr."""
    metadata: dict[str, str] = {}
    """Data about those, by MIME type, as JSON."""
    duration: Seconds = 0.0
    truncated: bool = False
    captured: bool = True
    """Whether the capture pipes may hold bytes, which are delivered first. False: they hold none."""
    changed: Changes | None = None
    """Made where `report` in `hello` names it."""


class Error(Message, frozen=True):
    """An execution failed; or, without an `execution_id`, the session reports an error."""

    kind: ErrorKind
    exception: str
    message: str
    execution_id: str | None = None
    notes: list[str] = []
    frames: list[Frame] = []
    traceback: str = ""
    cause: ExceptionData | None = None
    members: list[ExceptionData] = []
    suggestion: str | None = None
    mode: str = ""
    duration: Seconds = 0.0
    truncated: bool = False
    captured: bool = True
    """Whether the capture pipes may hold bytes, which are delivered first. False: they hold none."""
    changed: Changes | None = None
    """As in a `result`."""


class Checkpointed(Message, frozen=True):
    """A checkpoint was taken."""

    checkpoint_id: str
    data: bytes = b""
    blobs: dict[str, bytes] = {}
    unsaved: list[Unsaved] = []
    duration: Seconds = 0.0
    needs: list[str] = []
    """Digests of all blobs that a restore needs, those in `known` included."""


class Restored(Message, frozen=True):
    """A checkpoint was restored."""

    checkpoint_id: str
    names: list[str] = []
    unsaved: list[Unsaved] = []
    duration: Seconds = 0.0


class Progress(Message, frozen=True):
    """What the worker is at in a checkpoint or restore that takes longer than a second. Not in protocol 1."""

    checkpoint_id: str
    stage: ProgressStage
    name: str = ""
    """The variable that is saved or restored, or the module that is imported."""
    done: int = 0
    total: int = 0
    """How many names there are in all; 0 means not known."""


class Completions(Message, frozen=True):
    """Completions for the text between two character offsets, best first, with a kind for each."""

    request_id: str = ""
    matches: list[str] = []
    kinds: list[str] = []
    cursor_start: int = 0
    cursor_end: int = 0


class Inspection(Message, frozen=True):
    """What is known about a name, or, in `variables`, about all names."""

    request_id: str = ""
    found: bool = False
    name: str = ""
    type_name: str = ""
    signature: str = ""
    doc: str = ""
    source: str = ""
    repr: str = ""
    variables: list[Variable] = []


class Response(Message, frozen=True):
    """The answer to a `request`: a body, or an error. Not in protocol 1."""

    request_id: str
    body: Value = msgspec.UNSET
    error: RequestError | None = None
    parts: list[Bytes] = []
    """As in a `request`."""


class Pong(Message, frozen=True):
    """The worker responds: with resident bytes, CPU seconds, queued executions, and the one that runs."""

    nonce: int = 0
    rss: int = 0
    cpu_time: Seconds = 0.0
    queue: int = 0
    current_execution: str | None = None


class Stats(Message, frozen=True):
    """The session's metrics."""

    metrics: Metrics
    request_id: str = ""


type ToWorker = (
    Hello
    | Execute
    | InputResponse
    | CallResponse
    | Offer
    | Withdraw
    | Cancel
    | Checkpoint
    | Restore
    | Complete
    | Inspect
    | Ping
    | GetStats
    | Request
    | Chunk
    | Shutdown
)

type FromWorker = (
    Ready
    | Output
    | OutputRest
    | Display
    | Input
    | Call
    | Abandoned
    | Result
    | Error
    | Checkpointed
    | Restored
    | Progress
    | Completions
    | Inspection
    | Pong
    | Stats
    | Response
    | Chunk
)
