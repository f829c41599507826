"""Responses and messages as they cross Resonate's seam, and their coding as JSON."""

from typing import Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from resonate.error import DecodingError, ServerError
from resonate_base import PROTOCOL_VERSION

from pyrepl3_client.durable.sqlite.resonate_server.requests import (
    ABSENT,
    I64_MAX,
    FenceAction,
    Request,
    SettledState,
)

I64_MIN: Final = -(1 << 63)

type PromiseState = Literal["pending"] | SettledState
type TaskState = Literal["pending", "acquired", "suspended", "halted", "fulfilled"]


# --- records and responses ----------------------------------------------------------------------------


class Promise(Struct, frozen=True, rename="camel"):
    """A promise as Resonate reads it."""

    id: str
    state: PromiseState
    param: Raw
    value: Raw
    tags: Raw
    timeout_at: int
    created_at: int
    settled_at: int | UnsetType = UNSET


class Task(Struct, frozen=True, rename="camel"):
    """A task as Resonate reads it."""

    id: str
    state: TaskState
    version: int
    promise_id: str
    pid: str | UnsetType = UNSET
    ttl: int | UnsetType = UNSET


class Schedule(Struct, frozen=True, rename="camel"):
    """A schedule as Resonate reads it."""

    id: str
    cron: str
    promise_id: str
    promise_timeout: int
    promise_param: Raw
    promise_tags: Raw
    created_at: int
    next_run_at: int = 0
    last_run_at: int | None = None


class FenceResult(Struct, frozen=True):
    """The result of a fenced action, in the envelope's shape that Resonate expects here."""

    data: "FenceResultData"


class FenceResultData(Struct, frozen=True):
    """The promise that was created or settled; None when there was none to settle."""

    promise: Promise | None


class ResponseData(Struct, frozen=True):
    """The body of a response: what is unset is left out."""

    error: str | UnsetType = UNSET
    task: Task | UnsetType = UNSET
    promise: Promise | UnsetType | None = UNSET
    action: FenceResult | UnsetType = UNSET
    redirect: bool | UnsetType = UNSET
    preload: list[Promise] | UnsetType = UNSET
    schedule: Schedule | UnsetType = UNSET
    schedules: list[Schedule] | UnsetType = UNSET
    cursor: str | UnsetType | None = UNSET


class ServerResponse(Struct, frozen=True):
    """A status, in HTTP's manner, and a body."""

    status: int
    data: ResponseData = ResponseData()


class ResponseHead(Struct, frozen=True, rename="camel"):
    """The head of a response's envelope."""

    corr_id: Raw
    status: int
    version: str = PROTOCOL_VERSION


class Envelope(Struct, frozen=True):
    """A response on the wire."""

    kind: str
    head: ResponseHead
    data: ResponseData


# --- messages -----------------------------------------------------------------------------------------


class ExecuteTask(Struct, frozen=True):
    """The task to execute, at which version."""

    id: str
    version: int


class ExecuteData(Struct, frozen=True):
    """The body of an `Execute`."""

    task: ExecuteTask


class ExecuteMessage(Struct, frozen=True, tag_field="kind", tag="execute"):
    """Tells a worker that a task waits for it."""

    data: ExecuteData


class UnblockData(Struct, frozen=True):
    """The body of an `Unblock`."""

    promise: Promise


class UnblockMessage(Struct, frozen=True, tag_field="kind", tag="unblock"):
    """Tells a listener that a promise has settled."""

    data: UnblockData


class OutgoingMessage(Struct, frozen=True):
    """A message, ready for the wire, and its address."""

    address: str
    body: str


# --- bytes <-> types ----------------------------------------------------------------------------------

_encoder: Final = msgspec.json.Encoder()
_request: Final = msgspec.json.Decoder(Request)
_fence: Final = msgspec.json.Decoder(FenceAction)
_tags: Final = msgspec.json.Decoder(dict[str, str])


def parse_request(text: str) -> tuple[Request, Raw | str]:
    """Split a request into its envelope and the JSON of its body.

    Raises:
        DecodingError: the text is not JSON (or holds lone surrogates).
        ServerError: (400) it is not a request.
    """
    try:
        request = _request.decode(text)
    except msgspec.ValidationError as error:
        raise ServerError(400, f"malformed request: {error}") from error
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise DecodingError(f"invalid JSON request: {error}") from error
    return request, text if request.head is None or request.data is ABSENT else request.data


def parse_fence(action: Raw) -> tuple[str | None, Raw]:
    """Split a fenced action into its kind and the JSON of its body."""
    try:
        parsed = _fence.decode(action)
    except msgspec.ValidationError:
        return None, action
    return parsed.kind, action if parsed.data is ABSENT else parsed.data


def encode_response(request: Request, answer: ServerResponse) -> str:
    """Encode a response in the envelope of its request."""
    corr_id = request.corr_id if request.head is None else request.head.corr_id
    envelope = Envelope(request.kind, ResponseHead(corr_id, answer.status), answer.data)
    return _encoder.encode(envelope).decode()


def too_large(length: int, limit: int) -> ServerResponse:
    """Refuse a request of so many bytes."""
    return ServerResponse(
        413,
        ResponseData(
            error=f"the request of {length:,} bytes is over the limit of {limit:,}; keep large values "
            "outside of promises, or raise max_request_bytes"
        ),
    )


def execute_message(address: str, task_id: str, version: int) -> OutgoingMessage:
    """Make the message that has a worker at `address` execute the task."""
    message = ExecuteMessage(ExecuteData(ExecuteTask(task_id, version)))
    return OutgoingMessage(address, _encoder.encode(message).decode())


def unblock_body(promise: Promise) -> str:
    """Make the message that a promise has settled."""
    return _encoder.encode(UnblockMessage(UnblockData(promise))).decode()


def encode_tags(tags: dict[str, str]) -> bytes:
    """Return the tags as JSON."""
    return _encoder.encode(tags)


def parse_tags(raw: bytes) -> dict[str, str]:
    """Read back what `encode_tags` returned."""
    return _tags.decode(raw)


def required(value: str | None, field: str) -> str:
    """Return `value`, or refuse the request that has left it out.

    Raises:
        ServerError: (400) the field is missing or empty.
    """
    if not value:
        raise ServerError(400, f"missing or empty required field: {field}")
    return value


def saturating_add(a: int, b: int) -> int:
    """Add within 64 bits, which is what the columns hold."""
    return clamp(a + b)


def clamp(number: int) -> int:
    """Return the nearest number of 64 bits."""
    return max(I64_MIN, min(I64_MAX, number))
