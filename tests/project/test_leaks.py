"""The leak check of all tests: it finds each kind of leftover, and passes clean tests."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

CASES = """
import os, subprocess, tempfile, threading, time

def test_nothing():
    pass

def test_a_child():
    subprocess.Popen(["sleep", "100"])

def test_a_zombie():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

def test_a_grandchild():
    subprocess.run(["sh", "-c", "sleep 100 & exit"], stdout=subprocess.DEVNULL)

def test_a_thread():
    threading.Thread(target=time.sleep, args=(30,), name="sleeper", daemon=True).start()

def test_an_fd():
    os.open("/dev/null", 0)

def test_a_file():
    os.close(tempfile.mkstemp(suffix=".left")[0])

def test_a_child_that_is_waited_for():
    subprocess.run(["true"])

def test_a_grandchild_that_is_about_to_end():
    subprocess.run(["sh", "-c", "sleep 0.1 & exit"], stdout=subprocess.DEVNULL)

def test_a_thread_that_is_about_to_end():
    threading.Thread(target=time.sleep, args=(0.1,)).start()

def test_an_fd_in_place_of_another(old=os.open("/dev/zero", 0)):
    os.close(old)
    os.open("/dev/null", 0)

def test_a_file_of_its_own(tmp_path):
    (tmp_path / "kept").touch()
"""

LEFT = {
    "test_a_child": r"child process: \d+ sleep 100",
    "test_a_zombie": r"child process: \d+ \(ended, never waited for\)",
    "test_a_grandchild": r"orphaned process: \d+ sleep 100",
    "test_a_thread": "thread: sleeper",
    "test_an_fd": r"fd: \d+ -> /dev/null",
    "test_a_file": r"temporary file: \S+\.left",
}


def test_each_kind_of_leftover_fails_the_test_that_left_it(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    (tmp_path / "tests/helpers").mkdir(parents=True)
    for name in ("__init__.py", "conftest.py", "helpers/__init__.py", "helpers/leak_check.py"):
        shutil.copy(tests / name, tmp_path / "tests" / name)
    (tmp_path / "tests/test_cases.py").write_text(CASES)
    # Warnings about forks in a threaded process and forgotten Popen objects are not what is tested here.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:warnings",
        "--rootdir=.",
        "--basetemp=base",
    ]
    done = subprocess.run(
        [*command, "tests/test_cases.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    report = done.stdout
    found: dict[str, list[str]] = {}
    for case, text in re.findall(
        r"ERROR at teardown of (\w+) _+\nthe test left behind:\n((?:  .*\n)+)", report
    ):
        found[case] = [line.strip() for line in text.splitlines()]
    assert found.keys() == LEFT.keys(), report + done.stderr
    for case, pattern in LEFT.items():
        assert [bool(re.fullmatch(pattern, line)) for line in found[case]] == [True], found[case]
    assert "12 passed, 6 errors" in report
