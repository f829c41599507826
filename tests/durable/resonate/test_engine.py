"""What Resonate says of a store that fails."""

import logging
from typing import Final

import pytest
from resonate.error import PlatformError
from resonate_base import ConnectorError, ResonateError

from pyrepl3_client.durable.resonate import engine
from pyrepl3_client.errors import StoreError

_LOGGER: Final = logging.getLogger("resonate.core")
_FULL: Final = StoreError("the disk is full")


def log(error: BaseException) -> None:
    """Log an error as Resonate does."""
    try:
        raise error
    except (ResonateError, PlatformError):
        _LOGGER.exception("execution failed id=%s", "s.a")


@pytest.mark.parametrize("error", [ConnectorError(_FULL), PlatformError([ConnectorError(_FULL)])])
def test_a_store_that_fails_is_told_in_a_line(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    assert engine.translate_error(ConnectorError(_FULL)) is _FULL
    log(error)
    (record,) = caplog.records
    assert record.getMessage() == "execution failed id=s.a: the disk is full"
    assert record.levelno == logging.WARNING
    assert record.exc_info is None


def test_what_is_a_defect_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    log(ConnectorError(ValueError("who knows")))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
