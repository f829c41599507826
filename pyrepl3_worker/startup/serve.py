"""Waits for `hello` on the claimed fds, then runs the session."""

import asyncio
import ctypes
import faulthandler
import gc
import importlib
import os
import select
import signal
import sys
from time import monotonic
from typing import Final, NoReturn

from pyrepl3_schemas.constants import DEFAULT_MAX_FRAME_BYTES, PROTOCOLS
from pyrepl3_schemas.errors import RemoteProtocolError
from pyrepl3_schemas.messages import Adjustments, Error, Hello, ToWorker
from pyrepl3_schemas.reserved_names import why_reserved
from pyrepl3_worker.isolation import own_imports, private_builtins
from pyrepl3_worker.session.session import WorkerSession
from pyrepl3_worker.startup.environment import agree_with_interpreter
from pyrepl3_worker.wire.stdio import Stdio, avoid_low_fds
from pyrepl3_worker.wire.transport import FrameReader, FrameSender

_PR_SET_PDEATHSIG: Final = 1
_EXIT_PROTOCOL_ERROR: Final = 70
"""EX_SOFTWARE of sysexits.h: the client did not speak the protocol."""


def die_with_parent(parent: int | None) -> None:
    """Have the kernel kill this process when the parent's thread that started it ends.

    The end of stdin tells the same, but is not read while code computes.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        # The parent ended before the kernel knew of it.
        os._exit(0)


def serve(stdio: Stdio, parent: int | None, warm: list[str]) -> NoReturn:
    """Wait for `hello`, serve the session, and end the process.

    Args:
        stdio: the worker's fds.
        parent: pid of the process that started this one, if known.
        warm: modules to import before `hello`.
    """
    die_with_parent(parent)
    faulthandler.enable(stdio.stderr, all_threads=True)
    own_imports.install(private_builtins.builtins_of_worker)
    agree_with_interpreter(os.environ)
    # Python's own stdin object would read from /dev/null; code gets a better one with `hello`.
    sys.path.insert(0, "")
    # As in interactive Python. The worker's own would be taken for the code's (argparse, unittest.main).
    sys.argv[:] = [""]
    _import_warm_modules(warm, stdio)
    with avoid_low_fds(stdio.null):
        loop = asyncio.SelectorEventLoop()
    # Code that replaces `time.monotonic` for a test must not stop the loop's clock.
    vars(loop)["time"] = monotonic
    asyncio.set_event_loop(loop)
    reader = FrameReader(stdio.reader, DEFAULT_MAX_FRAME_BYTES)
    # To the oldest generation, without a collection: nothing that is there by now goes away.
    if not gc.get_freeze_count():  # else this process was forked, and shares the pages of what is frozen
        gc.freeze()
        gc.unfreeze()
    gc.enable()
    hello, waiting = _wait_for_hello(reader, stdio)
    if hello.config.max_frame_bytes != DEFAULT_MAX_FRAME_BYTES:
        reader.decoder.frames.max_frame_bytes = hello.config.max_frame_bytes
    if hello.adjust is not None:
        _adjust(hello.adjust, stdio)
    if hello.config.syntax == "ipython":
        _import_ipython(stdio)
    session = WorkerSession(hello, loop, stdio, reader, waiting)
    session.run()
    session.run_exit_handlers()
    os._exit(0)


def _import_warm_modules(modules: list[str], stdio: Stdio) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            os.write(stdio.stderr, f"pyrepl3-worker: --warm {name}: {error}\n".encode())
            os._exit(1)


def _wait_for_hello(reader: FrameReader, stdio: Stdio) -> tuple[Hello, list[ToWorker]]:
    poller = select.poll()
    poller.register(reader.fd, select.POLLIN)
    while True:
        poller.poll()
        try:
            messages = reader.read()
        except RemoteProtocolError as error:
            _refuse(stdio, str(error))
        if messages is None:
            os._exit(0)
        if not messages:
            continue
        first = messages[0]
        if not isinstance(first, Hello):
            _refuse(stdio, f"the first message was {type(first).__name__}, not hello")
        if first.protocol not in PROTOCOLS:
            known = " and ".join(map(str, PROTOCOLS))
            _refuse(stdio, f"protocol {first.protocol} was asked for; this worker speaks {known}")
        for spec in first.capabilities:
            reserved = why_reserved(spec.name)
            if reserved:
                _refuse(stdio, f"capability {spec.name!r} needs another name: {reserved}")
        return first, messages[1:]


def _adjust(change: Adjustments, stdio: Stdio) -> None:
    from pyrepl3_worker.session.adjustments import adjust  # for sessions of a pool, and few of those

    try:
        adjust(change)
        agree_with_interpreter(os.environ)
    except (OSError, ValueError) as error:
        _refuse(stdio, f"the worker cannot be adjusted to its session: {error}")


def _import_ipython(stdio: Stdio) -> None:
    """Import what the session's syntax needs; end the process when it is not there."""
    try:
        from pyrepl3_worker.ipython.syntax import IPythonSyntax  # noqa: F401 # pyright: ignore[reportUnusedImport] - the session has no way to refuse
    except ImportError as error:
        _refuse(
            stdio,
            f"syntax='ipython' needs IPython 9 or newer where the worker runs, but {sys.executable} has "
            f"none ({error}): install it there (python -m pip install ipython, or pyrepl3[ipython])",
        )


def _refuse(stdio: Stdio, reason: str) -> NoReturn:
    FrameSender(stdio.writer, DEFAULT_MAX_FRAME_BYTES).send(
        Error(kind="protocol", exception="RemoteProtocolError", message=reason, traceback=reason)
    )
    os.write(stdio.stderr, f"pyrepl3-worker: {reason}\n".encode())
    os._exit(_EXIT_PROTOCOL_ERROR)
