"""Carries out a parent's order to be confined, or says why not and ends."""

import os
import sys
from typing import Final, NoReturn

from pyrepl3_schemas.confinement import Confinement, unpack_confinement

EXIT_UNCONFINED: Final = 78
"""EX_CONFIG of sysexits.h: the machine can't do what was required."""


def confine(text: str, parent: int | None) -> int | None:
    """Go behind the boundary that `--confine` orders. Call it in a process of one thread.

    The calling process may become the keeper of its own child, in which this returns.

    Returns:
        The parent to die with, as far as it can still be seen from here.
    """
    try:
        order = unpack_confinement(text)
    except ValueError as error:
        _end(f"--confine is not understood: {error}")
    if order.level == "none":
        return parent
    from pyrepl3_worker.confinement import limits

    limits.leave_the_parents_session()
    if order.level == "limits":
        limits.give_up_privileges()
    else:
        parent = _confine_strictly(order, parent)
    limits.limit(order)
    return parent


def _confine_strictly(order: Confinement, parent: int | None) -> int | None:
    from pyrepl3_worker.confinement import strict

    before = os.getpid()
    try:
        strict.confine(order, parent)
    except strict.RefusedError as error:
        _end(str(error))
    if os.getpid() == before:
        return parent
    # It lies outside the namespace; the keeper dies with it, and this process with the keeper.
    return None


def _end(reason: str) -> NoReturn:
    sys.stderr.write(f"pyrepl3-worker: {reason}\n")
    sys.stderr.flush()
    os._exit(EXIT_UNCONFINED)
