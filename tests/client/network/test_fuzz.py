"""Requests and responses with seeded faults against a live proxy: only what is allowed arrives, and all ends.

What has arrived is read by the standard library's parser, which is more lenient than the proxy's: a second
request that only a lenient host would see is seen here.
"""

import asyncio
import contextlib
import email.parser
import io
import random
import re
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from pyrepl3_client._network.proxy import Limits
from tests.client.network.live_proxy import BOUND_SECONDS, Host, LiveProxy, live_proxy, recording_host

pytestmark = pytest.mark.anyio

LIMITS = Limits(connections=8, head_seconds=2.0, connect_seconds=2.0, idle_seconds=2.0)
CASES = 250
LONG_CASES = 20_000

REQUESTS = (
    "GET http://files.example:A/x HTTP/1.1\r\nHost: files.example:A\r\nAccept: */*\r\n\r\n",
    "GET http://127.0.0.1:A/x?y=z HTTP/1.0\r\n\r\n",
    "GET http://files.example:A/ HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    "GET http://files.example:A/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    (
        "GET http://files.example:A/ HTTP/1.1\r\nConnection: keep-alive, X\r\nX: 1\r\n\r\n"
        "GET http://files.example:B/ HTTP/1.1\r\n\r\n"
    ),
    (
        "POST http://files.example:A/ HTTP/1.1\r\nContent-Length: 40\r\n\r\n"
        "GET http://files.example:A/ HTTP/1.1\r\n\r\n"
    ),
    "GET http://files.example:B/ HTTP/1.1\r\nHost: files.example:A\r\n\r\n",
    "CONNECT 127.0.0.1:C HTTP/1.1\r\nHost: x\r\n\r\nhello",
    "CONNECT 127.0.0.1:B HTTP/1.1\r\n\r\nhello",
    "CONNECT files.example:A HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    # What hosts and proxies are known to read differently.
    (
        "GET http://files.example:A/ HTTP/1.1\r\nContent-Length: 43\r\nTransfer-Encoding: chunked\r\n\r\n"
        "0\r\n\r\nPOST http://127.0.0.1:B/ HTTP/1.1\r\n\r\n"
    ),
    "GET http://files.example:A/ HTTP/1.1\r\nX: y\nHost: files.example:B\r\n\r\n",
    "GET http://files.example:A/ HTTP/1.1\r\nX: y\n\nPOST http://127.0.0.1:B/ HTTP/1.1\r\n\r\n",
    (
        "GET http://files.example:A/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5\r\nhello0\r\n\r\nPOST / HTTP/1.1\r\n\r\n0\r\n\r\n"
    ),
)
PIECES = (
    "\r\n", "\n", "\r", "\0", " ", "\t", ":", ";", ",", "@", "#", "\\", "/", "?", "%0d%0a", "\x0b", "\x0c",
    "\x85", "\xa0", "\xff", "[::1]", "[", "]", "0x7f.1", "127.1", "127.0.0.1", "localhost",
    "files.example.", "FILES.EXAMPLE", ":A", ":B", ":0A", "http://", "https://", "//", " HTTP/1.1",
    " HTTP/1.0", " HTTP/0.9", "CONNECT ", "POST ", "GET ", "HEAD ", "\r\n\r\n", "\r\nHost: files.example:B",
    "\r\nContent-Length: 0", "\r\nContent-Length: 5", "\r\nContent-Length : 5", "\r\nContent-Length:5,5",
    "\r\nTransfer-Encoding: chunked", "\r\nTransfer-Encoding:\x0bchunked",
    "\r\nTransfer-Encoding: identity", "\r\n folded", "\r\nConnection: content-length",
    "\r\nConnection: transfer-encoding, host", "\r\nExpect: 100-continue", "0\r\n\r\n",
    "ffffffffffffffff\r\n", "5;x\r\n", "GET http://127.0.0.1:B/ HTTP/1.1\r\n\r\n",
    "CONNECT 127.0.0.1:B HTTP/1.1\r\n\r\n",
)  # fmt: skip
RESPONSES = (
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.0 200\r\nConnection: keep-alive\r\n\r\nrest",
)


def mutated(random_: random.Random, corpus: tuple[str, ...], ports: dict[str, int]) -> bytes:
    """Return one text of a corpus with a few faults, or none."""
    text = random_.choice(corpus)
    for _ in range(random_.choice((0, 1, 1, 2, 3, 6))):
        at, end = sorted(random_.randrange(len(text) + 1) for _ in range(2))
        match random_.randrange(5):
            case 0:
                text = text[:at] + random_.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[min(end, at + 4) :]
            case 2:
                text = text[:at] + chr(random_.randrange(256)) + text[at + 1 :]
            case 3:
                text = text[:at] + text[at:end] * 2 + text[end:]
            case _:
                # At the seams, where a fault is most likely to matter.
                seams = [found.start() for found in re.finditer(r"[\r\n :]", text)] or [0]
                seam = random_.choice(seams)
                text = text[:seam] + random_.choice(PIECES) + text[seam:]
    for name, port in ports.items():
        text = re.sub(rf"(?<=:){name}\b", str(port), text)
    return text.encode("latin-1")


async def throw(proxy: LiveProxy, random_: random.Random, data: bytes) -> bytes:
    """Send data in pieces and end; return what comes back. It has to come to an end."""
    with anyio.fail_after(BOUND_SECONDS):
        reader, writer = await proxy.connect()
        got = b""
        try:
            with contextlib.suppress(ConnectionError):
                while data:
                    size = random_.choice((1, 7, 64, 4096, 4096))
                    writer.write(data[:size])
                    data = data[size:]
                    await writer.drain()
                writer.write_eof()
                got = await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return got


def lenient_requests(data: bytes) -> list[tuple[str, list[str]]]:
    """Return the requests that a lenient host would find: their lines, and the values of Host."""
    found: list[tuple[str, list[str]]] = []
    stream = io.BytesIO(data)
    while line := stream.readline():
        if not line.strip():
            continue
        head = b""
        while (field := stream.readline()).strip():
            head += field
        fields = email.parser.BytesParser().parsebytes(head, headersonly=True)
        found.append((line.decode("latin-1").strip(), fields.get_all("Host", [])))
        if "chunked" in fields.get("Transfer-Encoding", "").lower():
            while size := int(stream.readline().split(b";")[0].strip() or b"0", 16):
                stream.read(size + 2)
            while stream.readline().strip():
                pass
        else:
            stream.read(int(fields.get("Content-Length", "0")))
    return found


@contextlib.asynccontextmanager
async def no_complaints() -> AsyncGenerator[None]:
    """Fail if a task of the loop ends with an error that nobody handles."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        yield
        assert complaints == []
    finally:
        loop.set_exception_handler(before)


async def fuzz(seed: int, cases: int) -> None:
    """Send `cases` requests of a seed, and look at what has arrived."""
    random_ = random.Random(seed)
    async with recording_host() as a, recording_host() as b, recording_host(None) as c, no_complaints():
        ports = {"A": a.port, "B": b.port, "C": c.port}
        rules = f"GET files.example:{a.port}", f"GET 127.0.0.1:{a.port}", f"127.0.0.1:{c.port}"
        names = {"files.example": ("10.0.0.1", "127.0.0.1")}
        tasks = len(asyncio.all_tasks())
        async with live_proxy(*rules, names=names, limits=LIMITS) as proxy:
            for number in range(cases):
                data = mutated(random_, REQUESTS, ports)
                at_once = random_.random() < 0.1
                try:
                    if at_once:
                        await asyncio.gather(*(throw(proxy, random_, data) for _ in range(12)))
                    else:
                        await throw(proxy, random_, data)
                    with anyio.fail_after(BOUND_SECONDS):
                        while a.open:  # noqa: ASYNC110 - it is the next turns of this loop
                            await asyncio.sleep(0)
                    check_arrived(a, b)
                except BaseException as error:
                    error.add_note(f"seed {seed}, case {number}: {data!r}")
                    raise
            for _ in range(len(proxy.told), cases):
                await proxy.last()
        assert sum(served.outcome == "ok" for served in proxy.told) >= cases // 20
        assert sum(served.outcome == "refused" for served in proxy.told) >= cases // 20
        assert all(served.message.isprintable() for served in proxy.told)
        with anyio.fail_after(BOUND_SECONDS):
            while a.open or c.open:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) <= tasks


def check_arrived(a: Host, b: Host) -> None:
    """What arrived is at most one request a connection, of the method and to the host that are allowed."""
    assert b.arrived == []
    allowed = {f"files.example:{a.port}", f"127.0.0.1:{a.port}"}
    for data in a.arrived:
        requests = lenient_requests(bytes(data))
        assert len(requests) <= 1, bytes(data)
        for line, hosts in requests:
            assert re.fullmatch(r"GET /[!-~]* HTTP/1\.[01]", line), bytes(data)
            assert len(hosts) == 1, bytes(data)
            assert hosts[0] in allowed, bytes(data)
    a.arrived.clear()


async def test_only_what_is_allowed_arrives() -> None:
    await fuzz(13, CASES)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
async def test_only_what_is_allowed_arrives_for_long(seed: int) -> None:
    await fuzz(1000 + seed, LONG_CASES)


async def test_no_response_breaks_the_proxy() -> None:
    random_ = random.Random(5)
    async with no_complaints():
        for _ in range(60):
            response = mutated(random_, RESPONSES, {})
            async with (
                recording_host(response) as host,
                live_proxy(f"127.0.0.1:{host.port}", limits=LIMITS) as proxy,
            ):
                data = f"GET http://127.0.0.1:{host.port}/ HTTP/1.1\r\n\r\n".encode()
                got = await throw(proxy, random_, data)
                served = await proxy.last()
            assert served.outcome in ("ok", "failed")
            if served.outcome == "ok":
                assert b"Connection: close\r\n" in got, response
