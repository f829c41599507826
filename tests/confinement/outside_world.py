"""The world outside a worker: secrets, services and processes that no escape may reach."""

import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SECRET = "the secret of the parent"
VARIABLE = "PYREPL3_TEST_SECRET"
_VICTIM = "import sys, time; print('ready', flush=True); time.sleep(600)"


@dataclass
class OutsideWorld:
    """Objects outside the worker that show whether an escape reached them."""

    folder: Path
    """Its permissions allow every user to write to it."""
    tcp: socket.socket
    udp: socket.socket
    unix: socket.socket
    abstract: socket.socket
    victim: subprocess.Popen[bytes]
    """A process of the same user, as another worker would be."""
    before: dict[str, tuple[int, int, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.files()

    @property
    def facts(self) -> dict[str, object]:
        """What the escapes know about the outside: paths, pids and addresses."""
        return {
            "folder": str(self.folder),
            "secret": str(self.folder / "secret"),
            "parent": os.getpid(),
            "victim": self.victim.pid,
            "tcp": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "unix": self.unix.getsockname(),
            "abstract": self.abstract.getsockname(),
        }

    def files(self) -> dict[str, tuple[int, int, bytes]]:
        """Return mode, links and content of everything in the folder, by name."""
        return {
            path.name: (
                path.stat().st_mode,
                path.stat().st_nlink,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in self.folder.iterdir()
        }

    def traces(self) -> list[str]:
        """Return what has changed or arrived since the last call; empty if nothing has."""
        found: list[str] = []
        if self.files() != self.before:
            found.append(f"files changed: {self.files()}")
        if self.victim.poll() is not None:
            found.append(f"the victim ended: {self.victim.returncode}")
        for name, listener in ("tcp", self.tcp), ("unix", self.unix):
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                continue
            found.append(f"somebody connected to {name}")
        for name, receiver in ("udp", self.udp), ("abstract", self.abstract):
            try:
                found.append(f"{name} got {receiver.recv(1000)!r}")
            except BlockingIOError:
                continue
        if os.getpriority(os.PRIO_PROCESS, self.victim.pid) != os.getpriority(os.PRIO_PROCESS, 0):
            found.append("the victim's priority changed")
        return found


@contextmanager
def open_world(folder: Path) -> Generator[OutsideWorld]:
    """Yield a world in a new folder, and end its process and services."""
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o666)
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "socket"))
        unix.listen()
        (folder / "socket").chmod(0o777)
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        abstract.bind(f"\0pyrepl3-test-{os.getpid()}")
        for endpoint in (tcp, udp, unix, abstract):
            endpoint.setblocking(False)
        victim = subprocess.Popen(
            [sys.executable, "-c", _VICTIM],
            stdout=subprocess.PIPE,
            env={**os.environ, VARIABLE: SECRET},
        )
        try:
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"ready\n"
            yield OutsideWorld(folder, tcp, udp, unix, abstract, victim)
        finally:
            victim.kill()
            victim.communicate()


def processes_with(token: str) -> list[int]:
    """Return the pids of all users' processes whose command line contains a text."""
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if token.encode() in command:
                found.append(int(entry))
    return found
