"""The names of things in a store: roots, children, correlation keys, digests.

Resonate reads a promise's id as `{root}:{lineage}`, and sessions find their own roots by their beginning,
so what separates is escaped in a session's and an execution's name: two pairs never share a root.
"""

import hashlib
from typing import Final

FUNCTION: Final = "async_execute"
VERSION: Final = 1

# "%" escapes itself; Resonate splits at ":" and pyrepl3 at the first "."; control characters have no use in
# an id, and PostgreSQL stores no NUL.
_RESERVED: Final = frozenset("%:.") | frozenset(map(chr, range(0x20))) | {"\x7f"}


def root_id(session_id: str, execution_id: str) -> str:
    """Return the id of an execution's promise: `{session_id}.{execution_id}`, reserved characters escaped.

    Raises:
        ValueError: an id holds a lone surrogate, which no store takes.
    """
    return session_prefix(session_id) + escaped(execution_id)


def session_prefix(session_id: str) -> str:
    """Return what the ids of all of a session's promises begin with, and no other session's."""
    return escaped(session_id) + "."


def session_root(session_id: str) -> str:
    """Return the id of the promise that stands for a session, in stores that hold promises alone.

    It has no full stop, which the root of every execution has.
    """
    return escaped(session_id)


def awaited_id(root: str) -> str:
    """Return the id of the promise that stands for the outcome: the first child of the root."""
    return f"{root}:1"


def awaited_tags(root: str) -> dict[str, str]:
    """Return the tags of that promise, as Resonate writes them."""
    return {
        "resonate:scope": "global",
        "resonate:branch": awaited_id(root),
        "resonate:parent": root,
        "resonate:origin": root,
        "resonate:external": "true",
    }


def session_group(session_id: str) -> str:
    """Return the group to which a session's tasks are addressed.

    A group becomes the host of an address, which servers take in lower case and in a few characters
    only; the digest keeps two sessions apart that differ in anything.

    Raises:
        ValueError: the id holds a lone surrogate.
    """
    return "pyrepl3-" + hashlib.sha256(session_id.encode()).hexdigest()[:32]


def execution_key(execution_id: str) -> str:
    """Return the correlation key of an execution: `exec:{execution_id}`."""
    return f"exec:{execution_id}"


def call_key(execution_id: str, name: str, n: str) -> str:
    """Return the correlation key of a host call or prompt: `{execution_id}:{name}:{n}`.

    Args:
        execution_id: the execution that made it.
        name: the host function's; `input` for a prompt.
        n: the place of the call in the tree of the code's tasks: `3`, or `2.1`.
    """
    return f"{execution_id}:{name}:{n}"


def call_place(call_id: str) -> str:
    """Return `n` of a call's id, which a worker makes in the form of `call_key`."""
    return call_id.rpartition(":")[2]


def key_tags(key: str) -> dict[str, str]:
    """Return the tag that carries a promise's correlation key."""
    return {"pyrepl3:key": key}


def code_digest(code: str) -> str:
    """Return the SHA-256 of code, in hexadecimal.

    Raises:
        ValueError: the code holds a lone surrogate.
    """
    return hashlib.sha256(code.encode()).hexdigest()


def escaped(name: str) -> str:
    """Return a name without characters that separate, so that it can be one segment of an id.

    Raises:
        ValueError: it holds a lone surrogate.
    """
    name.encode()
    if _RESERVED.isdisjoint(name):
        return name
    return "".join(f"%{ord(char):02X}" if char in _RESERVED else char for char in name)
