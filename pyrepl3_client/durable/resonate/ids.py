"""What things are called in a store: roots, children, correlation keys, digests.

Resonate reads a promise's id as `{root}:{lineage}`, and sessions find their own roots by their beginning,
so what separates is escaped in a session's and an execution's name: two pairs never share a root.
"""

import hashlib
from typing import Final

FUNCTION: Final = "async_execute"
VERSION: Final = 1

# "%" escapes itself; Resonate splits at ":" and we at the first "."; control characters are nobody's
# business in an id, and PostgreSQL stores no NUL.
_RESERVED: Final = frozenset("%:.") | frozenset(map(chr, range(0x20))) | {"\x7f"}


def root_id(session_id: str, execution_id: str) -> str:
    """Give the id of an execution's promise: `{session_id}.{execution_id}`, reserved characters escaped.

    Raises:
        ValueError: an id holds a lone surrogate, which no store takes.
    """
    return session_prefix(session_id) + escaped(execution_id)


def session_prefix(session_id: str) -> str:
    """Give what the ids of all of a session's promises begin with, and no other session's."""
    return escaped(session_id) + "."


def session_root(session_id: str) -> str:
    """Give the id of the promise that stands for a session, in stores that hold promises alone.

    It has no full stop, which the root of every execution has.
    """
    return escaped(session_id)


def awaited_id(root: str) -> str:
    """Give the id of the promise that stands for the outcome: the first child of the root."""
    return f"{root}:1"


def awaited_tags(root: str) -> dict[str, str]:
    """Give the tags of that promise, as Resonate writes them."""
    return {
        "resonate:scope": "global",
        "resonate:branch": awaited_id(root),
        "resonate:parent": root,
        "resonate:origin": root,
        "resonate:external": "true",
    }


def session_group(session_id: str) -> str:
    """Give the group to which a session's tasks are addressed.

    A group becomes the host of an address, which servers take in lower case and in a few characters
    only; the digest keeps two sessions apart that differ in anything.

    Raises:
        ValueError: the id holds a lone surrogate.
    """
    return "pyrepl3-" + hashlib.sha256(session_id.encode()).hexdigest()[:32]


def execution_key(execution_id: str) -> str:
    """Give the key by which an execution's answer finds its promise."""
    return f"exec:{execution_id}"


def input_key(execution_id: str, n: int | str) -> str:
    """Give the key of an execution's n-th prompt; `n` is its place in the task tree (`3`, or `2.1`)."""
    return call_key(execution_id, "input", n)


def call_key(execution_id: str, capability: str, n: int | str) -> str:
    """Give the key of an execution's n-th call of a capability; `n` as for `input_key`."""
    return f"{execution_id}:{capability}:{n}"


def code_digest(code: str) -> str:
    """Give the SHA-256 of code, in hexadecimal.

    Raises:
        ValueError: the code holds a lone surrogate.
    """
    return hashlib.sha256(code.encode()).hexdigest()


def escaped(name: str) -> str:
    """Give a name without characters that separate, so that it can be one segment of an id.

    Raises:
        ValueError: it holds a lone surrogate.
    """
    name.encode()
    if _RESERVED.isdisjoint(name):
        return name
    return "".join(f"%{ord(char):02X}" if char in _RESERVED else char for char in name)
