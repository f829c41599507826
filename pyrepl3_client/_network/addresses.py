"""Where a host is: its addresses, looked up once, and which of them a session may be connected to."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from pyrepl3_client._host_rules import Address, HostRule

type Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Looks a name up for a port: its addresses in the order in which they are to be tried. Raises OSError."""

_NOT_PUBLIC_V4: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
            "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        ),
    )
)  # fmt: skip
"""IANA's special-purpose registry (RFC 6890) with multicast, reserved and 6to4's relays; not by `is_global`,
whose answers differ between versions of Python."""
_GLOBAL_V6: Final = ip_network("2000::/3")
"""What is given out to the Internet. Outside are loopback, link-local, private and multicast addresses, and
those that hold an IPv4 address: mapped, compatible and of NAT64."""
_NOT_PUBLIC_V6: Final = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
"""Special purposes (Teredo among them), documentation, 6to4."""
_MAX_LOOKUPS: Final = 8
"""Threads of one proxy that look names up: one that hangs in the resolver cannot be ended."""


def is_public(address: Address) -> bool:
    """Return whether an address is one of the Internet's, by what the address alone says."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def is_this_machine(address: Address) -> bool:
    """Return whether an address is one of this machine's own: its services see no firewall from here.

    To its own addresses the kernel talks from the same address. Nothing is sent for this.
    """
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((str(address), 9))
        return probe.getsockname()[0] == str(address)
    return False  # no way leads there


def may_be_reached(address: Address, port: int, method: str, rules: Sequence[HostRule]) -> bool:
    """Return whether a session may be connected to an address whose name its rules allow."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False  # of one network interface: no rule names it
    if any(rule.names(address, port, method) for rule in rules):
        return True
    return is_public(address) and not is_this_machine(address)


class Resolver:
    """Looks names up as this program does, in threads that do not hold up its end."""

    def __init__(self) -> None:
        """Look up on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._free = asyncio.Semaphore(_MAX_LOOKUPS)

    async def resolve(self, name: str, port: int) -> Sequence[Address]:
        """Look a name up; see `Resolve`.

        Raises:
            OSError: it has no address, or the resolver has failed.
        """
        await self._free.acquire()
        found: asyncio.Future[Sequence[Address]] = self._loop.create_future()

        def settle(addresses: Sequence[Address] | None, error: OSError | None) -> None:
            # Only now: a look-up that is not waited for any more still has its thread.
            self._free.release()
            if found.done():
                return
            if addresses is None:
                found.set_exception(error or OSError("no answer"))
            else:
                found.set_result(addresses)

        def look_up() -> None:
            try:
                outcome = partial(settle, _addresses(name, port), None)
            except (OSError, ValueError) as error:
                outcome = partial(settle, None, error if isinstance(error, OSError) else OSError(str(error)))
            with suppress(RuntimeError):  # the loop is closed, and nothing waits
                self._loop.call_soon_threadsafe(outcome)

        try:
            threading.Thread(target=look_up, name="pyrepl3-lookup", daemon=True).start()
        except RuntimeError as error:
            self._free.release()
            raise OSError(str(error)) from None
        return await found


def _addresses(name: str, port: int) -> Sequence[Address]:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [_address(str(where[0]), where) for *_, where in found]


def _address(text: str, where: tuple[object, ...]) -> Address:
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.scope_id is None and where[-1]:
        return IPv6Address(f"{address}%{where[-1]}")  # of one interface: never public
    return address
