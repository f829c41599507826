"""Heads of HTTP/1: a client's request, parsed strictly and written anew, and a server's response.

A request is taken apart as RFC 9112 has it, and what that leaves to readers to be lenient about is refused:
so no server can see another request in it than was checked. It knows no socket.
"""

import re
from http import HTTPStatus
from typing import Final

import msgspec

from pyrepl3_client._host_rules import HTTP_PORT, Address, normal_host, split_port
from pyrepl3_client._text import quoted

MAX_HEAD_BYTES: Final = 16 * 1024
"""Bytes that the head of a request may have."""
MAX_RESPONSE_HEAD_BYTES: Final = 64 * 1024
"""Bytes that the head of a response may have."""
CONNECT: Final = "CONNECT"
CHUNKED: Final = -1
"""The length of a body that comes in chunks."""

_METHOD: Final = re.compile(r"[A-Za-z!#$%&'*+.^_`|~-]{1,32}")
_FIELD_NAME: Final = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~-]+")
_TARGET: Final = re.compile(r"[!-~]+")
_NO_TEXT: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Bytes that no line of a head may have: control characters other than tabs, line ends among them."""
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_RESPONSE_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
_OF_A_CONNECTION: Final = frozenset(
    {
        "connection", "proxy-connection", "keep-alive", "te", "trailer", "upgrade", "http2-settings",
        "proxy-authorization", "proxy-authenticate", "proxy-authentication-info",
    }
)  # fmt: skip
"""Fields that concern one connection, and are not passed on."""
_WRITTEN_ANEW: Final = frozenset({"host", "content-length", "transfer-encoding"})
_INFORMATIONAL: Final = range(100, 200)
_SWITCHING: Final = 101


class BadRequestError(Exception):
    """A head or a body is not what HTTP/1 has; the text says what is wrong."""


class Request(msgspec.Struct, frozen=True):
    """What a client asks for."""

    method: str
    host: str | Address
    """In its normal form."""
    port: int
    head: bytes = b""
    """What a server gets of a plain request; empty for CONNECT."""
    body_length: int = 0
    """Bytes of its body, or CHUNKED."""


def authority(host: str | Address, port: int) -> str:
    """Return `HOST:PORT`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def parse_request(head: bytes) -> Request:
    """Return what a client asks for.

    Args:
        head: all bytes up to the empty line, with it.

    Raises:
        BadRequestError: it is no request to a proxy, or can be read in more than one way.
    """
    lines = head[:-4].split(b"\r\n")
    if any(map(_NO_TEXT.search, lines)):
        raise BadRequestError("the head holds a control character, or a line that does not end in CR LF")
    method, target, version = _request_line(lines[0].decode("latin-1"))
    fields = [_field(line.decode("latin-1")) for line in lines[1:]]
    length = _body_length(fields, version)
    if method == CONNECT:
        if length:
            raise BadRequestError("CONNECT has no body")
        return Request(method, *_where(target, None))
    scheme, separator, rest = target.partition("://")
    if not separator:
        raise BadRequestError(f"the target {quoted(target)} is no absolute URL, as a proxy is sent")
    if scheme.lower() != "http":
        raise BadRequestError(f"the scheme {quoted(scheme)} is not http: anything else goes by CONNECT")
    end = re.search(r"[/?]|$", rest)
    assert end is not None
    host, port = _where(rest[: end.start()], HTTP_PORT)
    path = rest[end.start() :]
    if "#" in path:
        raise BadRequestError("the URL has a fragment")
    path = path if path.startswith("/") else f"/{path}"
    written = _written_anew(f"{method} {path} {version}", host, port, fields, length)
    return Request(method, host, port, written, length)


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != len(("method", "target", "version")) or not _METHOD.fullmatch(parts[0]):
        raise BadRequestError(f"{quoted(line)} is no request line")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequestError(f"{quoted(version)} is not HTTP/1")
    if not _TARGET.fullmatch(target):
        raise BadRequestError("the target is not in ASCII")
    return method, target, version


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _FIELD_NAME.fullmatch(name):
        raise BadRequestError(f"{quoted(line)} is no field")
    return name, value.strip(" \t")


def _where(text: str, default: int | None) -> tuple[str | Address, int]:
    try:
        name, port = split_port(text, default)
        return normal_host(name), port
    except ValueError as error:
        raise BadRequestError(f"{quoted(text)} is no host with its port: {error}") from None


def _body_length(fields: list[tuple[str, str]], version: str) -> int:
    """Return how long the body is: said once, and in one way."""
    lengths = [value for name, value in fields if name.lower() == "content-length"]
    codings = [value for name, value in fields if name.lower() == "transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise BadRequestError("the length of the body is said twice")
    if codings:
        if codings[0].lower() != "chunked" or version == "HTTP/1.0":
            raise BadRequestError(f"a body of Transfer-Encoding {quoted(codings[0])} is not passed on")
        return CHUNKED
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise BadRequestError(f"{quoted(lengths[0])} is no Content-Length")
    return int(lengths[0]) if lengths else 0


def _written_anew(
    line: str, host: str | Address, port: int, fields: list[tuple[str, str]], length: int
) -> bytes:
    named = {
        name.strip().lower()
        for field, value in fields
        if field.lower() == "connection"
        for name in value.split(",")
    }
    dropped = _OF_A_CONNECTION | _WRITTEN_ANEW | named
    shown = authority(host, port)
    lines = [line, f"Host: {shown.removesuffix(':80') if port == HTTP_PORT else shown}"]
    lines += [f"{name}: {value}" for name, value in fields if name.lower() not in dropped]
    if length == CHUNKED:
        lines.append("Transfer-Encoding: chunked")
    elif any(name.lower() == "content-length" for name, _ in fields):
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


def request_head_end(data: bytes) -> int:
    """Return where a request's head ends in what has come of it; -1 if it has not ended yet."""
    at = data.find(b"\r\n\r\n")
    return at + 4 if at >= 0 else -1


def response_head_end(data: bytes) -> int:
    """Return where a response's head ends in what has come of it; -1 if it has not ended yet."""
    match = _RESPONSE_END.search(data)
    return -1 if match is None else match.end()


def rewrite_response(head: bytes) -> tuple[bytes, bool]:
    """Return the head of a response as the client gets it, and whether it is the last one.

    Args:
        head: all bytes up to the empty line, with it.

    Raises:
        BadRequestError: it is no HTTP/1, or switches to something else.
    """
    first, *lines = re.split(rb"\r?\n", head.rstrip(b"\r\n"))
    match = _STATUS.fullmatch(first)
    if match is None:
        raise BadRequestError("what it sent is no HTTP/1")
    status = int(match[1])
    if status == _SWITCHING:
        raise BadRequestError("it switched to another protocol")
    kept = [
        line
        for line in lines
        if line.partition(b":")[0].strip().lower().decode("latin-1") not in _OF_A_CONNECTION
    ]
    is_last = status not in _INFORMATIONAL
    if is_last:
        kept.append(b"Connection: close")
    return b"\r\n".join([first, *kept, b"", b""]), is_last


def answer(status: int, text: str) -> bytes:
    """Return a response of the proxy's own, with a line of plain text."""
    body = f"pyrepl3: {text}\n".encode("utf-8", "backslashreplace")
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
