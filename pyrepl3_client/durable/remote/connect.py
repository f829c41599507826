"""How a store is reached over the network, with a limit to all waiting."""

import asyncio
import uuid
from collections.abc import Callable
from importlib import import_module
from typing import Final

from resonate.connections import HttpConnection, SSEConnection
from resonate_base import ConnectorError, Network, Source

from pyrepl3_client.durable.resonate.engine import ResonateConnection
from pyrepl3_client.durable.resonate.ids import session_group
from pyrepl3_client.errors import StoreError

# Seconds for an answer: connections try again for ever, sessions do not wait for ever.
ANSWER_TIMEOUT: Final = 15.0
# Seconds between two reads of what is pending: a message can be lost on its way.
REFRESH: Final = 60.0


class TimeLimitedNetwork:
    """A `Network` whose requests are answered in time, or fail.

    Args:
        network: carries them.
        safe_url: of the store, without credentials.
        timeout: seconds.
    """

    def __init__(self, network: Network, safe_url: str, timeout: float) -> None:
        """Carry requests by `network`."""
        self._network: Final = network
        self._safe_url: Final = safe_url
        self._timeout: Final = timeout

    async def start(self) -> None:
        """Start the network."""
        await self._network.start()

    async def stop(self) -> None:
        """Stop the network."""
        await self._network.stop()

    async def send(self, req: str, headers: dict[str, str] | None = None) -> str:
        """Carry a request.

        Raises:
            ConnectorError: around a `StoreError`: it was not answered in time, or failed.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._network.send(req, headers)
        except TimeoutError:
            raise ConnectorError(
                StoreError(
                    f"the store at {self._safe_url} did not answer within {self._timeout:g} s; check that it "
                    "runs and can be reached from here"
                )
            ) from None
        except ConnectorError as error:
            # Only the kind of the error within: its text may show how we log in.
            inner = type(error.error).__name__
            raise ConnectorError(
                StoreError(f"the store at {self._safe_url} cannot be reached, or failed ({inner})")
            ) from None


def connect_http(
    url: str, safe_url: str, token: str | None, session_id: str, timeout: float
) -> ResonateConnection:
    """Connect to a Resonate server.

    Args:
        url: its address, without credentials.
        safe_url: the same, for texts.
        token: its bearer token, if it wants one.
        session_id: whose tasks are to come here.
        timeout: seconds for an answer.
    """
    pid = uuid.uuid4().hex
    network = HttpConnection(url, auth=token)
    source = SSEConnection(url, pid=pid, group=session_group(session_id), auth=token)
    return ResonateConnection(TimeLimitedNetwork(network, safe_url, timeout), (source,), pid, REFRESH)


def connect_postgres(dsn: str, safe_url: str, session_id: str, timeout: float) -> ResonateConnection:
    """Connect to PostgreSQL with resonate-pg's schema.

    Raises:
        StoreError: resonate-pg is not installed.
    """
    try:
        connection_type: Callable[..., Network] = import_module("resonate_pg").PostgresConnection
    except ImportError:
        raise StoreError(
            f"cannot open the store at {safe_url}: PostgreSQL needs resonate-pg, which is not installed "
            "(pip install 'pyrepl3[postgres]')"
        ) from None
    pid = uuid.uuid4().hex
    connection = connection_type(dsn, pid=pid, group=session_group(session_id))
    if not isinstance(connection, Source):
        raise StoreError(
            f"cannot open the store at {safe_url}: this resonate-pg brings no messages; update it"
        )
    return ResonateConnection(TimeLimitedNetwork(connection, safe_url, timeout), (connection,), pid, REFRESH)
