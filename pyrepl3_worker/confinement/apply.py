"""Carries out the client's order to confine this process, or prints why it cannot and exits."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` takes as long to import as all of the boundary
if TYPE_CHECKING:
    from typing import Final, NoReturn

    from pyrepl3_schemas.confinement import Confinement
    from pyrepl3_worker.confinement.trees import Shown

EXIT_UNCONFINED: Final = 78
"""The exit code if the machine can't do what is required (EX_CONFIG of sysexits.h)."""
_STRICT_PREFIX: Final = '{"level":"strict"'
"""The first characters of strict orders from our own client."""


def confine(text: str, parent: int | None, files: int | None) -> int | None:
    """Confine this process as `--confine` orders. It must have only one thread.

    The calling process may become the keeper process of its own child, and this returns in the child.

    Args:
        text: the order, as JSON.
        parent: pid of the process that started this one, if known.
        files: a socket on which the parent expects descriptors of this process's directories, if it has a
            root of its own; the caller's to close.

    Returns:
        The pid of the parent to die with; None if it cannot be seen from the new namespaces.
    """
    # The keeper and init are forked before anything is imported: forking a small process is fast, and
    # the worker is a fork too, so every page that it writes to has to be copied.
    entry = enter_namespaces(parent) if text.startswith(_STRICT_PREFIX) else None
    from pyrepl3_schemas.confinement import unpack_confinement

    try:
        order = unpack_confinement(text)
    except ValueError as error:
        _exit_unconfined(f"--confine is not understood: {error}")
    if order.level == "none":
        return parent
    from pyrepl3_worker.confinement import rlimits

    rlimits.start_own_session()
    if order.level == "limits":
        from pyrepl3_worker.confinement import siblings

        rlimits.drop_privileges()
        siblings.refuse_siblings()
    else:
        parent = _confine_strict(order, parent, entry or enter_namespaces(parent), files, None)
    rlimits.set_rlimits(order)
    return parent


def confine_strictly(
    order: Confinement,
    parent: int,
    files: int,
    shown: Shown,
    entry: NamespaceEntry,
) -> int | None:
    """Draw a strict boundary around this process; like `confine`, for an interpreter that starts behind it.

    Args:
        order: the boundary.
        parent: pid of the process that started this one.
        files: as for `confine`.
        shown: what the interpreter needs, and how it is shown.
        entry: what came of `enter_namespaces`, in this process.

    Returns:
        The pid of the parent to die with; None if it cannot be seen from the new namespaces.
    """
    return _confine_strict(order, parent, entry, files, shown)


def adopt(text: str) -> None:
    """Take over what was put in force before this interpreter was started (`--confined`)."""
    from pyrepl3_schemas.confinement import unpack_in_force
    from pyrepl3_worker.confinement import in_force

    try:
        found = unpack_in_force(text)
    except ValueError as error:
        _exit_unconfined(f"--confined is not understood: {error}")
    in_force.adopt(found.features, found.limits, found.own_directory)
    os.environ.update(found.environment)


class NamespaceEntry:
    """The outcome of entering namespaces."""

    def __init__(self, refusal: OSError | None) -> None:
        """Keep the kernel's error in `refusal`; None if it allowed the namespaces."""
        self.refusal = refusal


def enter_namespaces(parent: int | None) -> NamespaceEntry:
    """Enter new namespaces, if the kernel allows it: the calling process becomes the keeper of its child.

    Args:
        parent: pid of the process that started this one, if known.
    """
    from pyrepl3_worker.confinement import namespaces

    try:
        namespaces.enter(parent)
    except OSError as error:
        return NamespaceEntry(error)
    return NamespaceEntry(None)


def _confine_strict(
    order: Confinement,
    parent: int | None,
    entry: NamespaceEntry,
    files: int | None,
    shown: Shown | None,
) -> int | None:
    from pyrepl3_worker.confinement import strict

    try:
        strict.confine(order, parent, entry.refusal, files, shown)
    except strict.ConfinementUnavailableError as error:
        _exit_unconfined(str(error))
    # In namespaces the parent can't be seen: the keeper dies with it, and this process with the keeper.
    return parent if entry.refusal is not None else None


def _exit_unconfined(reason: str) -> NoReturn:
    sys.stderr.write(f"pyrepl3-worker: {reason}\n")
    sys.stderr.flush()
    os._exit(EXIT_UNCONFINED)
