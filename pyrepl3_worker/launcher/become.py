"""Becomes a strictly confined worker: draws the boundary, then executes the interpreter behind it."""

from __future__ import annotations

import marshal
import os
import select
import signal
from _json import encode_basestring_ascii
from types import SimpleNamespace

from pyrepl3_worker.confinement import in_force
from pyrepl3_worker.confinement.apply import EXIT_UNCONFINED, confine_strictly, enter_namespaces
from pyrepl3_worker.confinement.rlimits import set_rlimits, start_own_session
from pyrepl3_worker.confinement.trees import PinnedPath, Shown

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from pyrepl3_schemas.confinement import Confinement

_READ_BYTES = 1 << 20


class Request:
    """What the client asks for: a map that it has marshalled, whose keys are most of these names."""

    def __init__(self, fields: dict[str, Any], fds: list[int]) -> None:
        """Take the values from a map, and the fds in their order."""
        self.command: list[bytes] = fields["command"]
        """The interpreter and its arguments, without those about fds and confinement."""
        self.environment: dict[bytes, bytes] = fields["environment"]
        """The interpreter's variables."""
        self.later: dict[str, str] = fields["later"]
        """Variables that the worker sets when its interpreter has started."""
        self.order: Confinement = SimpleNamespace(**fields["order"])  # pyright: ignore[reportAttributeAccessIssue] - it has its fields
        """The boundary."""
        self.python: list[str] = fields["python"]
        """The paths that the interpreter needs."""
        self.live: list[str] = fields["live"]
        """Those among them whose files may be replaced while the worker lives."""
        paths: list[tuple[str, str, bool]] = fields["pins"]
        frames_in, frames_out, captured_out, captured_err, self.files, *pins = fds
        self.pins = [
            (shown, real, fd, writable) for (shown, real, writable), fd in zip(paths, pins, strict=True)
        ]
        """The paths of the policy: as it has them, without links, an fd of each, and is it writable?"""
        self.frames = [frames_in, frames_out]
        """Fds to read frames from, and to write them to."""
        self.captured = [captured_out, captured_err]
        """Fds for what code writes to its fds 1 and 2. `files` is a socket for descriptors of the
        directories that the worker sees."""


def read_request(fd: int, fds: list[int]) -> Request:
    """Wait until a request is written, read it, and close the file that it is in.

    Args:
        fd: the file. The client says on the socket for files that it is whole.
        fds: those of its worker: for frames in and out, for captured output and errors, for files, and one
            for each path of the policy.
    """
    files = fds[4]
    poller = select.poll()
    poller.register(files, select.POLLIN)
    poller.poll()
    if not os.read(files, 1):
        os._exit(0)  # the client has given it up
    parts: list[bytes] = []
    size = 0
    while part := os.pread(fd, _READ_BYTES, size):
        parts.append(part)
        size += len(part)
    os.close(fd)
    return Request(marshal.loads(b"".join(parts)), fds)  # noqa: S302 - our client has written it


def become_worker(parent: int, file: int, fds: list[int]) -> NoReturn:
    """Draw the boundary around this process, which has one thread, and run the interpreter behind it.

    Args:
        parent: pid of the client.
        file: as for `read_request`.
        fds: as for `read_request`.
    """
    # Before the request is read: so the client can write it meanwhile, and the keeper has nothing of it.
    entry = enter_namespaces(parent)
    request = read_request(file, fds)
    environment = {os.fsdecode(name): os.fsdecode(text) for name, text in request.environment.items()}
    os.environ.clear()
    os.environ.update(environment)
    start_own_session()
    order = request.order
    # With their real paths, which are pinned too.
    for field, writable in ("readable", False), ("writable", True):
        paths = [path for *both, _, is_writable in request.pins if is_writable is writable for path in both]
        setattr(order, field, tuple(dict.fromkeys(paths)))
    pins = {path: PinnedPath(real, fd) for shown, real, fd, _ in request.pins for path in (shown, real)}
    shown = Shown(tuple(request.python), frozenset((*request.live, *order.readable)), pins)
    seen = confine_strictly(order, parent, request.files, shown, entry)
    for _, _, fd, _ in request.pins:
        os.close(fd)
    os.close(request.files)
    set_rlimits(request.order)
    # The interpreter looks for the user's packages by the variables that it was given, not by the new ones.
    later = {name: text for name, text in os.environ.items() if environment.get(name) != text}
    arguments = ["--confined", _as_json({**request.later, **later})]
    if seen is not None:
        arguments += ["--parent", str(seen)]
    for option, ends in ("--frames", request.frames), ("--capture", request.captured):
        arguments += [option, ",".join(map(str, ends))]
        for fd in ends:
            os.set_inheritable(fd, True)
    # Python ignores these two, and an interpreter would inherit that.
    for number in signal.SIGPIPE, signal.SIGXFSZ:
        signal.signal(number, signal.SIG_DFL)
    command = [*request.command, *map(os.fsencode, arguments)]
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - running an interpreter is what this is for
    except OSError as error:
        python = os.fsdecode(command[0])
        text = (
            f"pyrepl3-worker: {python!r} cannot be run behind the boundary: {error.strerror} (what it needs "
            "is not visible there; name its folder in the policy's readable, or give python= the interpreter "
            "itself)\n"
        )
        os.write(2, text.encode(errors="backslashreplace"))
        os._exit(EXIT_UNCONFINED)


def _as_json(environment: dict[str, str]) -> str:
    """Return what the worker has to know: see `pyrepl3_schemas.confinement.InForce`."""
    features = ",".join(map(encode_basestring_ascii, in_force.active()))
    limits = ",".join(f"{encode_basestring_ascii(name)}:{n}" for name, n in in_force.limits().items())
    own = in_force.own_directory()
    variables = ",".join(
        f"{encode_basestring_ascii(name)}:{encode_basestring_ascii(text)}"
        for name, text in environment.items()
    )
    return (
        f'{{"features":[{features}],"limits":{{{limits}}},'
        f'"own_directory":{"null" if own is None else encode_basestring_ascii(own)},'
        f'"environment":{{{variables}}}}}'
    )
