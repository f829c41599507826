"""`doctor`: what it says of this machine, and of machines on which something is forbidden."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_worker.confinement import seccomp, syscalls

RUN_DOCTOR = """
import pyrepl3_client, sys
found = pyrepl3_client.doctor()
print(found.level)
for check in found.missing: print(check)
"""


def test_what_this_machine_can_do_is_what_workers_can() -> None:
    found = pyrepl3.doctor()
    by_name = {check.name: check for check in found.checks}
    assert len(by_name) == len(found.checks)
    assert found.level == ("strict" if by_name["a worker at 'strict'"].ok else "limits")
    assert bool(found.missing) == (found.level != "strict")
    for check in found.checks:
        assert check.detail
        assert check.ok == (not check.remedy)
        assert check.name in str(found)
    assert "no_new_privs" in by_name["a worker at 'limits'"].detail


def test_an_interpreter_that_runs_nothing_is_no_level_at_all() -> None:
    found = pyrepl3.doctor(pyrepl3.WorkerConfig(python="/bin/false"))
    assert found.level is None
    assert str(found).startswith("No worker can be started on this machine.\n")
    assert [check.name for check in found.missing] == ["a worker at 'limits'", "a worker at 'strict'"]
    assert all("/bin/false" in check.detail for check in found.missing)


def test_what_is_no_configuration_is_refused() -> None:
    with pytest.raises(TypeError, match="config must be a WorkerConfig, not 'strict'"):
        pyrepl3.doctor("strict")  # pyright: ignore[reportArgumentType]


def _forbid_user_namespaces() -> None:
    """Have a user namespace of one's own in which there may be no further ones."""
    uid, gid = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWUSER)
    for name, text in ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"):
        with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="utf-8") as file:
        file.write("0")


def _filter_as_containers_do() -> None:
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install_filter(seccomp.PRIVATE_FAMILIES)


@pytest.mark.parametrize(
    ("forbid", "remedy"),
    [
        pytest.param(_forbid_user_namespaces, "sysctl user.max_user_namespaces=", id="a sysctl"),
        pytest.param(_filter_as_containers_do, "docker run --security-opt seccomp=", id="a filter"),
    ],
)
def test_what_is_forbidden_is_named_with_what_allows_it(forbid: Callable[[], None], remedy: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_DOCTOR],
        preexec_fn=forbid,
        capture_output=True,
        text=True,
        check=True,
    )
    level, *missing = done.stdout.splitlines()
    assert level == "limits"
    text = "\n".join(missing)
    assert text.startswith("MISSING  user namespace: ")
    assert remedy in text
    assert "a worker at 'strict'" in text
