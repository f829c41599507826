"""Runs code without a boundary, in a way that this machine survives: the controls of the escapes.

    python unbounded_world.py apart|forked    a dict on stdin: prelude, facts, programs by their names, …

Each program runs in a process of its own. `apart` has namespaces with all privileges in them: processes,
mounts and a network of its own, and what is written to the folders that are named stays in memory. `forked`
has none of that. It prints a JSON object: for each name "ok", the text of its last expression, or the type
of its exception.
"""

import ast
import contextlib
import ctypes
import json
import os
import signal
import sys
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_MS_RDONLY, _MS_REC_PRIVATE = 1, 0x44000
_STORE = "/mnt"
"""What is written goes to a file system in memory, which is mounted here."""


def main() -> None:
    """Run the programs of stdin."""
    given = ast.literal_eval(sys.stdin.read())
    if sys.argv[1] == "apart":
        os.unshare(
            os.CLONE_NEWUSER
            | os.CLONE_NEWNS
            | os.CLONE_NEWPID
            | os.CLONE_NEWNET
            | os.CLONE_NEWUTS
            | os.CLONE_NEWIPC
        )
        run_apart(given)
    json.dump(run_all(given), sys.stdout)


def run_apart(given: dict[str, Any]) -> None:
    """Go on as the first process of a PID namespace; the outer one ends with it."""
    uid, gid = given["uid"], given["gid"]
    for name, text in ("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1"):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    init = os.fork()
    if init:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(init, 0)[1]) & 0xFF)
    mount("none", "/", "", _MS_REC_PRIVATE)
    # Read-only: settings of the machine are in it, which uid 0 of the machine may change in any namespace.
    mount("proc", "/proc", "proc", _MS_RDONLY)


def keep_in_memory(folders: list[str]) -> None:
    """Have what this process writes to some folders stay in memory."""
    os.unshare(os.CLONE_NEWNS)
    mount("store", _STORE, "tmpfs")
    for number, folder in enumerate(folders):
        upper, work = f"{_STORE}/{number}/upper", f"{_STORE}/{number}/work"
        os.makedirs(upper)
        os.makedirs(work)
        os.chmod(upper, os.stat(folder).st_mode & 0o7777)
        mount("overlay", folder, "overlay", 0, f"lowerdir={folder},upperdir={upper},workdir={work},userxattr")


def start_other() -> int:
    """Start a process that is there to be reached; return its pid."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        while True:
            signal.pause()
    return pid


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Call mount(2)."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def run_all(given: dict[str, Any]) -> dict[str, str]:
    """Run all programs; return what came of each."""
    facts = given["facts"]
    outcomes: dict[str, str] = {}
    for name, code in given["programs"].items():
        others: list[int] = []
        if sys.argv[1] == "apart":
            # Those that the code may reach, instead of the ones outside.
            others = [start_other(), start_other()]
            facts["parent"], facts["victim"] = others
        outcomes[name] = run_one(code, given, facts)
        for pid in others:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # the code has killed it
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return outcomes


def run_one(code: str, given: dict[str, Any], facts: dict[str, Any]) -> str:
    """Run a program in a child; return what came of it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            if sys.argv[1] == "apart":
                keep_in_memory(given["folders"])
            text = outcome(code, given["prelude"], facts)
        except OSError as error:
            text = f"it could not be run: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        text = file.read().decode()
    while os.waitpid(-1, 0)[0] != pid:
        pass
    return text or "it has ended"


def outcome(code: str, prelude: str, facts: dict[str, Any]) -> str:
    """Run a program here; return what came of it."""
    space: dict[str, Any] = {}
    exec(prelude, space)
    space["W"] = facts
    signal.alarm(20)
    try:
        *statements, last = ast.parse(code).body
        exec(compile(ast.Module(statements, []), "control", "exec"), space)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "control", "eval"), space)
            return value if isinstance(value, str) and value in ("contained", "ESCAPED") else "ok"
        exec(compile(ast.Module([last], []), "control", "exec"), space)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


if __name__ == "__main__":
    main()
