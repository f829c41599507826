"""Carries out a parent's order to be confined, or says why not and ends."""

import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from pyrepl3_schemas.confinement import Confinement

EXIT_UNCONFINED: Final = 78
"""EX_CONFIG of sysexits.h: the machine can't do what was required."""
_STRICT: Final = '{"level":"strict"'
"""How our own client's strict orders begin."""


def confine(text: str, parent: int | None) -> int | None:
    """Go behind the boundary that `--confine` orders. Call it in a process of one thread.

    The calling process may become the keeper of its own child, in which this returns.

    Returns:
        The parent to die with, as far as it can still be seen from here.
    """
    # The keeper and init are forked before anything is imported: a small process is quickly copied, and
    # the worker, a copy too, has to copy each page that it writes to.
    entry = _enter(parent) if text.startswith(_STRICT) else None
    from pyrepl3_schemas.confinement import unpack_confinement

    try:
        order = unpack_confinement(text)
    except ValueError as error:
        _end(f"--confine is not understood: {error}")
    if order.level == "none":
        return parent
    from pyrepl3_worker.confinement import rlimits

    rlimits.leave_the_parents_session()
    if order.level == "limits":
        rlimits.give_up_privileges()
    else:
        parent = _confine_strictly(order, parent, entry or _enter(parent))
    rlimits.limit(order)
    return parent


class _Entry:
    """What came of going into namespaces."""

    def __init__(self, refusal: OSError | None) -> None:
        """`refusal`: the kernel's, if it did not allow it."""
        self.refusal = refusal


def _enter(parent: int | None) -> _Entry:
    from pyrepl3_worker.confinement import namespaces

    try:
        namespaces.enter(parent)
    except OSError as error:
        return _Entry(error)
    return _Entry(None)


def _confine_strictly(order: "Confinement", parent: int | None, entry: _Entry) -> int | None:
    from pyrepl3_worker.confinement import strict

    try:
        strict.confine(order, parent, entry.refusal)
    except strict.RefusedError as error:
        _end(str(error))
    # Behind a keeper the parent can't be seen: the keeper dies with it, and this process with the keeper.
    return parent if entry.refusal is not None else None


def _end(reason: str) -> NoReturn:
    sys.stderr.write(f"pyrepl3-worker: {reason}\n")
    sys.stderr.flush()
    os._exit(EXIT_UNCONFINED)
