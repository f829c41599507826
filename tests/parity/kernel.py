"""Runs a notebook's cells in a Jupyter kernel. Needs ipykernel and jupyter_client."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.parity.cells import Outcome, count_pictures, normal

_SECONDS = 60


@contextmanager
def kernel(folder: Path) -> Generator[Any]:
    """Start a kernel that works in a folder; give its client."""
    manager: Any = import_module("jupyter_client").KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=_SECONDS)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.destroy()


def run_in_kernel(client: Any, code: str) -> Outcome:
    """Run one cell; give what it did."""
    request = client.execute(code, allow_stdin=False)
    text = {"stdout": "", "stderr": ""}
    value, value_mimes = "", ()
    displays: list[tuple[str, ...]] = []
    nested_errors: list[str] = []
    while True:
        message = client.get_iopub_msg(timeout=_SECONDS)
        if message["parent_header"].get("msg_id") != request:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] == "idle":
            break
        if kind == "stream":
            text[content["name"]] += content["text"]
        elif kind == "execute_result":
            value, value_mimes = content["data"].get("text/plain", ""), tuple(sorted(content["data"]))
        elif kind == "display_data":
            displays.append(tuple(sorted(content["data"])))
        elif kind == "error":
            nested_errors.append(f"{content['ename']}: {content['evalue']}")
    reply = client.get_shell_msg(timeout=_SECONDS)
    while reply["parent_header"].get("msg_id") != request:
        reply = client.get_shell_msg(timeout=_SECONDS)
    reply = reply["content"]
    error = f"{reply['ename']}: {reply['evalue']}" if reply["status"] == "error" else ""
    if not error and nested_errors:
        # Of a cell that a magic has run: shown as an error, while the cell itself succeeds.
        text["stderr"] += "".join(f"{line}\n" for line in nested_errors)
    for payload in reply.get("payload", ()):
        if payload["source"] == "page":
            text["stdout"] += payload["data"].get("text/plain", "") + "\n"
    return Outcome(
        error=normal(error),
        stdout=normal(text["stdout"]),
        stderr=normal(text["stderr"]),
        value=normal(value),
        value_mimes=value_mimes,
        displays=tuple(displays),
        pictures=count_pictures([*displays, value_mimes]),
    )
