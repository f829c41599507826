"""What a worker leaves to later, OpenSSL and `typing_extensions`, is there when something uses it."""

from pathlib import Path

import pytest

import pyrepl3_client as pyrepl3
from tests.helpers.real_sessions import quick, value

pytestmark = pytest.mark.anyio

LOADED = "import sys; [name for name in ('ssl', '_ssl', 'asyncio.sslproto') if name in sys.modules]"
ECHO_OVER_TLS = """
import asyncio, os, ssl, subprocess, tempfile

async def echo(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()

with tempfile.TemporaryDirectory() as folder:
    key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "certificate.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    asking = ssl.create_default_context(cafile=certificate)

async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=serving) as server:
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=asking, server_hostname="localhost"
    )
    writer.write(b"hello\\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
answer
"""
PLAIN_SOCKETS = """
import asyncio, socket, sys
one, other = socket.socketpair()
one.setblocking(False)
other.setblocking(False)
loop = asyncio.get_running_loop()
await loop.sock_sendall(one, b"x")
received = await loop.sock_recv(other, 1)
one.close(); other.close()
[received, asyncio.base_events.ssl is sys.modules["ssl"], asyncio.selector_events.ssl is sys.modules["ssl"]]
"""
PATCHED = """
import asyncio, sys
from unittest import mock
with mock.patch("asyncio.sslproto.SSLProtocol", "patched"):
    inside = sys.modules["asyncio.sslproto"].SSLProtocol
[inside, asyncio.sslproto.SSLProtocol.__name__, asyncio.sslproto is sys.modules["asyncio.sslproto"],
 asyncio.base_events.sslproto.SSLProtocol is asyncio.sslproto.SSLProtocol,
 asyncio.base_events.sslproto is asyncio.sslproto, asyncio.selector_events.sslproto is asyncio.sslproto]
"""
LOOKED_AT = """
import asyncio
[hasattr(asyncio.sslproto, "no_such_name"), "SSLProtocol" in dir(asyncio.sslproto), asyncio.sslproto.__name__]
"""
TYPES = """
import msgspec, typing_extensions
class Options(typing_extensions.TypedDict, total=False):
    name: typing_extensions.Required[str]
    size: typing_extensions.NotRequired[int]
class Holder(msgspec.Struct):
    options: typing_extensions.Annotated[Options, msgspec.Meta(description="x")]
msgspec.json.decode(b'{"options": {"name": "a"}}', type=Holder).options
"""


async def test_a_new_worker_has_not_loaded_them() -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        assert await value(session, LOADED) == []
        await session.checkpoint()
        await session.variables()
        assert (await session.complete("import o")).matches
        assert await value(session, LOADED) == []
        assert await value(session, "import ssl; ssl.__name__, type(ssl).__name__") == ["ssl", "module"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (ECHO_OVER_TLS, b"hello\n"),
        (PLAIN_SOCKETS, [b"x", True, True]),
        (PATCHED, ["patched", "SSLProtocol", True, True, True, True]),
        (LOOKED_AT, [False, True, "asyncio.sslproto"]),
        (TYPES, {"name": "a"}),
    ],
    ids=["tls", "sockets", "patched", "looked at", "typing_extensions"],
)
async def test_what_uses_them_first_finds_them(code: str, expected: object) -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        assert await value(session, code) == expected
        assert await value(session, code) == expected


async def test_a_file_of_the_code_named_ssl_is_the_code_s(tmp_path: Path) -> None:
    (tmp_path / "ssl.py").write_text("mine = 1")
    async with pyrepl3.open_session(config=pyrepl3.WorkerConfig(cwd=str(tmp_path))) as session:
        loaded = (
            PLAIN_SOCKETS.rpartition("\n[")[0] + "\n[received, asyncio.base_events.ssl.SSLSocket.__name__]"
        )
        assert await value(session, loaded) == [b"x", "SSLSocket"]
        assert await value(session, "import ssl; ssl.mine") == 1
        assert await value(session, loaded) == [b"x", "SSLSocket"]
