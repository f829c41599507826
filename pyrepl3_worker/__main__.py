"""The worker's command line: claim the fds first, then serve one session."""

import gc
import os
import sys

# Objects are only added until the session begins: collections would find next to nothing.
gc.disable()

from pyrepl3_worker.isolation import private_builtins

# Before asyncio, and every module that it and the worker use, is imported.
private_builtins.install()

from pyrepl3_worker.isolation import late_imports

late_imports.import_asyncio_and_msgspec()

from typing import NoReturn

_USAGE = """usage: pyrepl3-worker [--parent PID] [--capture OUT,ERR] [--frames IN,OUT] [--warm MODULE,...]
                      [--confine JSON | --confined JSON] [--files FD]

Runs one pyrepl3 session. A program starts this, not a person: it speaks length-prefixed
MessagePack frames on stdin and stdout (see PROTOCOL.md).

  --parent PID        die when this process, which started us, does
  --capture OUT,ERR   inherited fds of pipes for the code's fds 1 and 2, drained by the parent
  --frames IN,OUT     inherited fds to speak on instead of stdin and stdout
  --warm MODULE,...   import these before saying ready
  --confine JSON      the boundary to go behind before anything else, {"level": "strict"} say
  --confined JSON     the boundary that this was started behind, and what is in force
  --files FD          inherited socket to the parent, for descriptors of the directories seen behind that
  --version           print the protocol's number and exit
"""


_OPTIONS = ("--parent", "--capture", "--frames", "--warm", "--confine", "--confined", "--files")


class _Arguments:
    """The command line, parsed by hand: argparse would cost a tenth of the start-up time."""

    def __init__(self, argv: list[str]) -> None:
        self.parent: int | None = None
        self.capture: tuple[int, int] | None = None
        self.frames: tuple[int, int] | None = None
        self.warm: list[str] = []
        self.confine: str | None = None
        self.confined: str | None = None
        self.files: int | None = None
        rest = list(argv)
        while rest:
            option = rest.pop(0)
            if option in ("-h", "--help"):
                print(_USAGE, end="")
                raise SystemExit(0)
            if option == "--version":
                from pyrepl3_schemas.constants import PROTOCOL

                print(f"pyrepl3-worker, protocol {PROTOCOL}")
                raise SystemExit(0)
            if option not in _OPTIONS or not rest:
                raise SystemExit(f"pyrepl3-worker: bad argument {option!r}\n{_USAGE}")
            value = rest.pop(0)
            try:
                if option == "--parent":
                    self.parent = int(value)
                elif option in ("--capture", "--frames"):
                    first, second = map(int, value.split(","))
                    if option == "--capture":
                        self.capture = first, second
                    else:
                        self.frames = first, second
                elif option == "--confine":
                    self.confine = value
                elif option == "--confined":
                    self.confined = value
                elif option == "--files":
                    self.files = int(value)
                else:
                    self.warm = [name for name in value.split(",") if name]
            except ValueError:
                raise SystemExit(f"pyrepl3-worker: bad value {value!r} for {option}") from None


def main() -> NoReturn:
    """Run a worker on this process's stdin and stdout."""
    run(sys.argv[1:])


def run(argv: list[str]) -> NoReturn:
    """Run a worker on this process's stdin and stdout, then end the process.

    Args:
        argv: the command line without the program's name.
    """
    arguments = _Arguments(argv)
    if arguments.frames is not None:
        _speak_on(*arguments.frames)
    if arguments.capture is None and (sys.stdin is None or sys.stdin.isatty()):
        raise SystemExit(f"pyrepl3-worker: stdin is no pipe; a parent program has to start this\n{_USAGE}")
    if arguments.confine is not None:
        # Before any code of the user runs, and before the process has a second thread.
        from pyrepl3_worker.confinement.apply import confine

        arguments.parent = confine(arguments.confine, arguments.parent, arguments.files)
    if arguments.confined is not None:
        from pyrepl3_worker.confinement.apply import adopt

        adopt(arguments.confined)
    if arguments.files is not None:
        os.close(arguments.files)  # no code of the session may send on it
    from pyrepl3_worker.wire.stdio import claim_standard_fds

    # Before anything is imported that could print.
    stdio = claim_standard_fds(arguments.capture)
    try:
        from pyrepl3_worker.startup.serve import serve

        serve(stdio, arguments.parent, arguments.warm)
    except BaseException:
        # Fd 2 is the code's by now; the worker's own messages go to the original stderr.
        import traceback

        os.write(stdio.stderr, traceback.format_exc().encode("utf-8", "backslashreplace"))
        os._exit(1)


def _speak_on(frames_in: int, frames_out: int) -> None:
    """Put fds in the place of stdin and stdout, which were the interpreter's own until now."""
    if sys.stdout is not None:
        sys.stdout.flush()  # what `sitecustomize` has printed
    for fd, target in (frames_in, 0), (frames_out, 1):
        os.dup2(fd, target)
        os.close(fd)


if __name__ == "__main__":
    main()
