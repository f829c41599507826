"""The network of strictly confined code: what its policy allows, through the program's proxy, and no more."""

import asyncio
import contextlib
import http.server
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import SandboxPolicy
from tests.confinement.sessions import run, strict_config, value
from tests.confinement.test_levels import forbid_namespaces

pytestmark = pytest.mark.anyio

HERE = "127.0.0.2"
"""An address of this machine that is not the code's own loopback, by what NO_PROXY says."""
THREAD = "pyrepl3-network"


class _Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        assert isinstance(self.server, _Server)
        self.server.asked.append(format % args)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        self.asked: list[str] = []
        super().__init__((HERE, 0), partial(_Files, directory=str(folder)))
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)


@contextlib.contextmanager
def serving(folder: Path, certificate: Path | None = None) -> Generator[_Server]:
    """Serve a folder's files on loopback."""
    with _Server(folder, certificate) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    """A host that has one file."""
    (tmp_path / "file").write_text("hello")
    with serving(tmp_path) as server:
        yield server


ANSWER = """
import urllib.error
try:
    urllib.request.urlopen({url!r})
except urllib.error.HTTPError as error:
    answer = error.code, error.read().decode()
answer
"""
FORKED = """
import os
pid = os.fork()
if not pid:
    urllib.request.urlopen({url!r})
    os._exit(7)
os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def policy(server: _Server, *more: str) -> pyrepl3.WorkerConfig:
    """Return a configuration that allows a host."""
    return strict_config(sandbox=SandboxPolicy(hosts=(f"{HERE}:{server.server_port}", *more)))


def get(server: _Server, path: str = "/file") -> str:
    """Return code that reads a file of a host."""
    url = f"http://{HERE}:{server.server_port}{path}"
    return f"import urllib.request\nurllib.request.urlopen({url!r}, timeout=20).read().decode()"


async def test_hosts_of_a_policy_and_nothing_else(server: _Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server((HERE, 0)) as beside:
        other.setblocking(False)
        beside.setblocking(False)
        async with pyrepl3.open_session(config=policy(server)) as session:
            assert "network" in session.worker.confinement
            assert await value(session, get(server)) == "hello"
            # Past the proxy there is no way out, at once; its own loopback is empty.
            for target in (HERE, server.server_port), (HERE, beside.getsockname()[1]), ("8.8.8.8", 53):
                for code in (
                    f"import socket\nsocket.create_connection({target}, 5)",
                    f"socket.socket().sendto(b'x', socket.MSG_FASTOPEN, {target})",
                    f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', {target})",
                ):
                    if target[0] == HERE and "DGRAM" in code:
                        continue  # it goes to the code's own loopback, and nobody is there
                    result = await run(session, code)
                    assert result.error is not None, code
                    assert result.error.type in ("OSError", "ConnectionRefusedError"), result.error
            result = await run(session, "socket.socket().connect(('8.8.8.8', 53))")
            assert result.error is not None
            assert "Network is unreachable" in result.error.message
            result = await run(
                session, f"socket.create_connection(('127.0.0.1', {other.getsockname()[1]}), 5)"
            )
            assert result.error is not None
            result = await run(session, "socket.getaddrinfo('example.org', 80)")
            assert result.error is not None
            # What listens there is heard by nobody here.
            await session.execute("listening = socket.socket()\nlistening.listen()")
            port = await value(session, "listening.getsockname()[1]")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
            # Through the proxy: another port, an address by another form, a name.
            for url in (
                f"http://{HERE}:{beside.getsockname()[1]}/",
                f"http://0x7f000002:{server.server_port}/",
                "http://169.254.169.254/latest/meta-data/",
                "http://example.org/",
            ):
                code = ANSWER.format(url=url)
                status, text = await value(session, code)
                assert status in (400, 403), (url, status)
                assert text.startswith("pyrepl3: "), text
            for listener in other, beside:
                with pytest.raises(BlockingIOError):
                    listener.accept()
    assert server.asked == ['"GET /file HTTP/1.1" 200 -']
    assert THREAD not in {thread.name for thread in threading.enumerate()}


async def test_ports_of_a_policy_are_public_hosts_at_these(server: _Server) -> None:
    config = strict_config(sandbox=SandboxPolicy(tcp_ports=(server.server_port,)))
    async with pyrepl3.open_session(config=config) as session:
        result = await run(session, get(server))
        assert result.error is not None
        assert "403" in result.error.message
    assert server.asked == []


async def test_the_environment_names_the_proxy_and_nothing_does_without_hosts(server: _Server) -> None:
    code = "import os\n{name: text for name, text in os.environ.items() if 'proxy' in name.lower()}"
    async with pyrepl3.open_session(config=policy(server)) as session:
        proxy, own = "http://127.0.0.1:3128", "localhost,127.0.0.1,::1"
        assert await value(session, code) == {
            "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": own,
            "http_proxy": proxy, "https_proxy": proxy, "no_proxy": own,
        }  # fmt: skip
    untrusted = pyrepl3.WorkerConfig.untrusted(sandbox=policy(server).sandbox)
    async with pyrepl3.open_session(config=untrusted) as session:
        assert await value(session, get(server)) == "hello"
    async with pyrepl3.open_session(config=strict_config()) as session:
        assert await value(session, code) == {}
        result = await run(session, "import socket\nsocket.create_connection(('127.0.0.1', 3128), 5)")
        assert result.error is not None
        assert result.error.type == "ConnectionRefusedError"


async def test_each_worker_of_a_session_has_the_proxy(server: _Server) -> None:
    events: list[pyrepl3.SessionEvent] = []
    async with pyrepl3.open_session(config=policy(server), on_event=events.append) as session:
        assert await value(session, get(server)) == "hello"
        await session.restart()
        assert await value(session, get(server)) == "hello"
        await session.execute("import os\nkept = 5\nopened = urllib.request.build_opener()")
        os.kill(session.worker.pid, 9)
        assert await value(session, f"kept, {get(server).splitlines()[1]}") == [5, "hello"]
        # A cell that waits for the network is cancelled as any other, and so is what a child process does.
        await session.execute("import socket\nwaiting = socket.create_connection(('127.0.0.1', 3128))")
        with pytest.raises(pyrepl3.ExecutionTimeout):
            await session.execute("waiting.recv(1)", timeout=0.2)
        child = f"subprocess.run([sys.executable, '-c', {get(server)!r}], check=True).returncode"
        assert await value(session, f"import subprocess, sys\n{child}") == 0
        url = f"http://{HERE}:{server.server_port}/file"
        assert await value(session, FORKED.format(url=url)) == 7
    told = [event for event in events if isinstance(event, pyrepl3.NetworkEvent)]
    assert [event.outcome for event in told].count("ok") >= 5
    assert {event.incarnation for event in told} == {1, 2, 3}
    # Connections that were left open ended with their workers, whichever was noticed first.
    left = {event.message for event in told if event.outcome == "failed" and not event.method}
    assert left <= {"the worker has ended", "the client's connection broke: it ended before it began"}
    assert left
    assert THREAD not in {thread.name for thread in threading.enumerate()}


async def test_connections_are_logged(server: _Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pyrepl3.network")
    async with pyrepl3.open_session(config=policy(server), session_id="s-1") as session:
        await session.execute(get(server))
        await run(session, "urllib.request.urlopen('https://example.org/')")
    (reached, refused) = [record for record in caplog.records if record.name == "pyrepl3.network"]
    assert reached.levelno == logging.DEBUG
    assert f"session 's-1': GET {HERE}:{server.server_port}: ok after" in reached.getMessage()
    assert refused.levelno == logging.INFO
    assert "CONNECT example.org:443: refused" in refused.getMessage()
    assert "the rule 'example.org:443' in SandboxPolicy(hosts=…) would allow it" in refused.getMessage()
    assert (vars(refused)["session"], vars(refused)["event"].outcome) == ("s-1", "refused")


async def test_a_busy_program_holds_up_no_connection(server: _Server) -> None:
    async with pyrepl3.open_session(config=policy(server)) as session:
        running = session.start(
            f"import time\n{get(server).replace('urllib.request.urlopen', 'answer = urllib.request.urlopen')}"
        )
        end = time.monotonic() + 20
        while not server.asked and time.monotonic() < end:
            time.sleep(0.01)  # noqa: ASYNC251 - this is the busy loop
        assert server.asked
        await running


async def test_two_sessions_have_each_its_own_hosts(server: _Server) -> None:
    async with (
        pyrepl3.open_session(config=policy(server)) as first,
        pyrepl3.open_session(config=strict_config(sandbox=SandboxPolicy(hosts=("example.org",)))) as second,
    ):
        assert [thread.name for thread in threading.enumerate()].count(THREAD) == 1
        assert (await run(second, get(server))).error is not None
        assert await value(first, get(server)) == "hello"


async def test_pools_have_the_policy_of_their_workers(server: _Server) -> None:
    async with pyrepl3.WorkerPool(1, config=policy(server)) as pool:
        async with pool.open_session() as session:
            assert await value(session, get(server)) == "hello"
        other = strict_config(sandbox=SandboxPolicy(hosts=("example.org",)))
        with pytest.raises(ValueError, match=r"config\.sandbox"):
            await pool.open_session(config=other)


def forbid_networks(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have workers started by a Python that may create all namespaces but networks, by its sysctl alone."""
    path = folder / "python"
    path.write_text(f"""#!{sys.executable}
import os, sys
uid, gid = os.getuid(), os.getgid()
os.unshare(os.CLONE_NEWUSER)
for name, text in ("setgroups", "deny"), ("uid_map", f"{{uid}} {{uid}} 1"), ("gid_map", f"{{gid}} {{gid}} 1"):
    with open(f"/proc/self/{{name}}", "w") as file:
        file.write(text)
# The settings of the user namespace that was just made: the machine's own stay as they are.
with open("/proc/sys/user/max_net_namespaces", "w") as file:
    file.write("0")
os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
""")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "_base_executable", str(path))


@pytest.mark.parametrize("forbid", [forbid_namespaces, forbid_networks])
async def test_without_a_network_of_its_own_nothing_is_reached(
    server: _Server,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    forbid: Callable[[pytest.MonkeyPatch, Path], None],
) -> None:
    """A worker that is confined less has no network at all, past the proxy or through it, and it is told."""
    sandbox = SandboxPolicy(hosts=(f"{HERE}:{server.server_port}",))
    forbid(monkeypatch, work)
    config = strict_config(sandbox=sandbox, confinement_required=False)
    async with pyrepl3.open_session(config=config) as session:
        assert "network" in session.worker.confinement
        for code in (
            get(server),
            f"import socket\nsocket.create_connection(({HERE!r}, {server.server_port}), 5)",
        ):
            result = await run(session, code)
            assert result.error is not None
            assert "Permission denied" in result.error.message
    (record,) = [record for record in caplog.records if record.name == "pyrepl3.network"]
    assert "reaches none of the hosts" in record.getMessage()
    assert server.asked == []


@pytest.mark.parametrize("scheme", ["https", pytest.param("http", marks=pytest.mark.long)])
async def test_pip_installs_through_the_proxy(tmp_path: Path, scheme: str) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    _make_index(site / "simple" / "tiny-package", work)
    certificate = _make_certificate(tmp_path / "certificate.pem", work) if scheme == "https" else None
    with serving(site, certificate) as server:
        where = f"{HERE}:{server.server_port}"
        config = strict_config(sandbox=SandboxPolicy(hosts=(where,), readable=(str(work),)))
        async with pyrepl3.open_session(config=config) as session:
            command = [
                sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check",
                "--no-cache-dir", "--retries=0", "--target=packages",
                f"--index-url={scheme}://{where}/simple/", "tiny-package",
            ]  # fmt: skip
            if certificate is not None:
                command.append(f"--cert={work / certificate.name}")
            with anyio.fail_after(60):
                pip = f"d = subprocess.run({command!r}, capture_output=True, text=True)"
                done = await session.execute(f"import subprocess\n{pip}\nd.returncode, d.stdout + d.stderr")
            assert done.value[0] == 0, done.value[1]
            code = "import sys\nsys.path.insert(0, 'packages')\nimport tiny_package\ntiny_package.answer"
            assert await value(session, code) == 42


def _make_index(folder: Path, work: Path) -> None:
    folder.mkdir(parents=True)
    work.mkdir()
    wheel = "tiny_package-1.0-py3-none-any.whl"
    files = {
        "tiny_package.py": "answer = 42\n",
        "METADATA": "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name if name.endswith(".py") else f"tiny_package-1.0.dist-info/{name}", text)
    (folder / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')


def _make_certificate(path: Path, work: Path) -> Path:
    """Make a key with its certificate; the code can read the certificate alone."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate")
    public = work / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName=IP:{HERE}", "-keyout", str(path),
         "-out", str(public)],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + public.read_text())
    return path


CLIENTS = {
    "curl": """
import subprocess
subprocess.run(['curl', '-sSf', URL], capture_output=True, check=True).stdout.decode()
""",
    "requests": """
import requests
with requests.Session() as session:
    texts = [session.get(URL).text for _ in range(5)]
assert len(set(texts)) == 1
texts[0]
""",
    "httpx": "import httpx\nhttpx.get(URL).text",
    "aiohttp": """
import aiohttp
async with aiohttp.ClientSession(trust_env=True) as session, session.get(URL) as response:
    text = await response.text()
text
""",
}


@pytest.mark.parametrize("client", CLIENTS)
async def test_clients_that_know_of_proxies(server: _Server, client: str) -> None:
    async with pyrepl3.open_session(config=policy(server)) as session:
        probe = "shutil.which('curl')" if client == "curl" else f"importlib.util.find_spec({client!r})"
        if not await value(session, f"import shutil, importlib.util\n{probe} is not None"):
            pytest.skip(f"{client} is not installed")
        url = f"http://{HERE}:{server.server_port}/file"
        assert await value(session, f"URL = {url!r}\n{CLIENTS[client]}") == "hello"


async def test_a_program_that_ends_does_not_wait_for_its_proxy(server: _Server) -> None:
    program = f"""
import asyncio, pyrepl3_client as p
async def main():
    policy = p.SandboxPolicy(hosts=('{HERE}:{server.server_port}',))
    config = p.WorkerConfig(confinement='strict', sandbox=policy)
    session = await p.open_session(config=config)
    await session.execute({get(server)!r})
    await session.execute("import socket; s = socket.create_connection(('127.0.0.1', 3128))")
    return session
session = asyncio.run(main())
"""
    with anyio.fail_after(30):
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
