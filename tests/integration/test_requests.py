"""Requests by kind on real workers."""

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client._worker.transfers import RequestRefused

pytestmark = pytest.mark.anyio


async def test_a_kind_that_the_worker_does_not_know_is_named(shared: pyrepl3.Session) -> None:
    worker = await shared._ready_worker()  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(RequestRefused, match="no requests of kind 'no such'") as refused:
        await worker.requests.by_kind.ask("no such", {"a": 1}, 10)
    assert refused.value.exception == "LookupError"
