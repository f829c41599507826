"""SHA-256, without OpenSSL as long as only little is to be digested.

Loading OpenSSL takes some 5 ms and a megabyte of private memory; from then on it digests eight times faster
(CPython 3.13 with its own HACL* code beside OpenSSL 3.0, x86-64 with SHA extensions).
"""

import sys
from typing import Any, Final, Protocol, cast

_LITTLE: Final = 64 * 1024
"""Bytes that take 0.4 ms without OpenSSL."""


class Hash(Protocol):
    """A digest that more data can be added to."""

    def update(self, data: bytes, /) -> None:
        """Add data."""
        ...

    def digest(self) -> bytes:
        """Return the digest of all data."""
        ...

    def hexdigest(self) -> str:
        """Return the same in hexadecimal digits."""
        ...


def sha256(data: bytes | bytearray | memoryview) -> Hash:
    """Return the SHA-256 of some data, as `hashlib.sha256` does."""
    if len(data) <= _LITTLE and "_hashlib" not in sys.modules:
        import _sha2  # pyright: ignore[reportMissingImports] - private, as all that hashlib takes

        return cast(Any, _sha2).sha256(data)
    import hashlib

    return hashlib.sha256(data)
