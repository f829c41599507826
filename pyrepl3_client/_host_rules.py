"""Rules that say which hosts a session's code may reach: their text, their meaning, and names in one form.

Whatever a name or an address looks like, it is compared in one form only: lower case, no final dot, ASCII. A
numeral that is no plain IPv4 address (`127.1`, `0x7f000001`, `2130706433`) is no name, and is refused.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

import msgspec

from pyrepl3_schemas.executor_config import shown

type Address = IPv4Address | IPv6Address

HTTPS_PORT: Final = 443
"""The port of a rule that names none."""
HTTP_PORT: Final = 80
"""The port of a rule that names methods, and none."""
MAX_PORT: Final = 65535
_MAX_NAME_CHARS: Final = 253
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMERAL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_METHOD: Final = re.compile(r"[A-Z]{1,32}")
_MAPPED_OTHERWISE: Final = frozenset("ßς\u200c\u200d")
"""Characters that the two editions of IDNA take for different names."""
_FORM: Final = (
    "a rule is HOST:PORT or METHOD,METHOD HOST:PORT, as 'pypi.org:443', '*.example.org:443', '*:443', "
    "'10.0.0.0/8:443', '[fd00::1]:8000', 'GET,HEAD example.org:80'"
)


class HostRule(msgspec.Struct, frozen=True):
    """One rule: what it names may be connected to, at its port."""

    name: str
    """A host's name; `*.example.org` for all below one, `*` for all. Empty if it names addresses."""
    network: IPv4Network | IPv6Network | None
    """The addresses that it names."""
    port: int
    methods: tuple[str, ...] = ()
    """The methods of plain HTTP that it allows, and nothing else then; empty: whatever is sent."""

    def __str__(self) -> str:
        """Return its text in its normal form."""
        methods = f"{','.join(self.methods)} " if self.methods else ""
        host = self.name
        if self.network is not None:
            # One address is written without the length of its prefix.
            whole = self.network.prefixlen == self.network.max_prefixlen
            host = str(self.network.network_address if whole else self.network)
            host = f"[{host}]" if self.network.version == _IPV6 else host
        return f"{methods}{host}:{self.port}"

    def allows(self, host: "str | Address", port: int, method: str) -> bool:
        """Return whether a request for a host is allowed, as far as its name says.

        Args:
            host: its name in its normal form, or an address.
            port: the port.
            method: of plain HTTP; "CONNECT" for a tunnel.
        """
        if not self._is_for(port, method):
            return False
        if isinstance(host, str):
            return self.name in (host, "*") or (self.name[:2] == "*." and host.endswith(self.name[1:]))
        return self.name == "*" or self.names(host, port, method)

    def names(self, address: Address, port: int, method: str) -> bool:
        """Return whether it names an address literally, alone or in a range: also one that is not public."""
        return self.network is not None and self._is_for(port, method) and address in self.network

    def _is_for(self, port: int, method: str) -> bool:
        return port == self.port and (not self.methods or method in self.methods)


_IPV6: Final = 6


def parse_rules(what: str, rules: Iterable[str]) -> tuple[HostRule, ...]:
    """Return rules by their texts.

    Args:
        what: name of the field or argument, for the error.
        rules: their texts.

    Raises:
        ValueError: one is not of a rule's form; says why.
        TypeError: a single string was given instead of several, or one is no string.
    """
    if isinstance(rules, str | bytes) or not isinstance(rules, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - what callers pass
        raise TypeError(f"{what} must be a tuple of rules, not {shown(rules)}; {_FORM}")
    parsed: list[HostRule] = []
    for rule in rules:
        if not isinstance(rule, str):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
            raise TypeError(f"{what} must hold strings, not {shown(rule)}; {_FORM}")
        try:
            parsed.append(_parse_rule(rule))
        except ValueError as error:
            raise ValueError(f"{what} holds {shown(rule)}: {error}") from None
    return tuple(dict.fromkeys(parsed))


def _parse_rule(text: str) -> HostRule:
    before, space, target = text.rpartition(" ")
    methods = tuple(dict.fromkeys(before.split(","))) if space else ()
    for method in methods:
        if not _METHOD.fullmatch(method) or method == "CONNECT":
            raise ValueError(f"{shown(method)} is no method of plain HTTP; {_FORM}")
    host, port = split_port(target, HTTP_PORT if methods else HTTPS_PORT)
    if "%" in host:
        raise ValueError("an address of one network interface has no place in a rule")
    if "/" in host or host.startswith("["):
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        network = ip_network(bare)  # says itself what is wrong
        if (network.version == _IPV6) != host.startswith("["):
            raise ValueError(f"an IPv6 address stands in brackets, and no other; {_FORM}")
        return HostRule("", network, port, methods)
    if host == "*":
        return HostRule("*", None, port, methods)
    below = host.startswith("*.")
    found = normal_host(_ascii(host[2:] if below else host))
    if isinstance(found, str):
        return HostRule(f"*.{found}" if below else found, None, port, methods)
    if below:
        raise ValueError(f"nothing is below an address; {_FORM}")
    return HostRule("", ip_network(found), port, methods)


def _ascii(name: str) -> str:
    if name.isascii():
        return name
    if _MAPPED_OTHERWISE & set(name):
        raise ValueError("the editions of IDNA differ about this name: give it in ASCII, as xn--…")
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"the name is not one of IDNA: {error}") from None


def split_port(text: str, default: int | None) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; an IPv6 address stays in its brackets.

    Args:
        text: the text.
        default: the port where there is none; None if there must be one.

    Raises:
        ValueError: there is no host, or no such port.
    """
    host, colon, digits = text.rpartition(":")
    if not colon or digits.endswith("]"):
        host, digits = text, ""
        if default is None:
            raise ValueError("there is no port")
        port = default
    else:
        if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_PORT))):
            raise ValueError(f"{shown(digits)} is no port")
        port = int(digits)
    if not 0 < port <= MAX_PORT:
        raise ValueError(f"{port} is no port (1 to {MAX_PORT})")
    if not host:
        raise ValueError("there is no host")
    return host, port


def normal_host(text: str) -> str | Address:
    """Return a host in the one form that rules are compared with: an address, or a name.

    Args:
        text: a name in ASCII, an IPv4 address, or an IPv6 address in brackets.

    Raises:
        ValueError: it is none of these.
    """
    if text.startswith("["):
        if not text.endswith("]") or "%" in text:
            raise ValueError("it is no IPv6 address in brackets")
        return IPv6Address(text[1:-1])
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > _MAX_NAME_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("it is no host's name")
    if _NUMERAL.fullmatch(labels[-1]):
        # Where the last part is a number, resolvers take all of it for an address, in many forms.
        try:
            return IPv4Address(text)
        except ValueError:
            raise ValueError("it is a numeral, and no IPv4 address in its plain form") from None
    return name
