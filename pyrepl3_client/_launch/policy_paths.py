"""The paths of a policy, resolved once: code that can write to a folder above one must not choose what it is.

Each is held by a descriptor (O_PATH) while the session lives. Whoever mounts it for the next worker opens the
path again, and takes it only if it is what the descriptor is open on.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pyrepl3_client.config import SandboxPolicy
from pyrepl3_client.errors import SpawnError

_HOLD: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS: Final = 40
_PRUNED_AT: Final = 1000
_granted: Final[dict[str, None]] = {}
"""Folders that code of this program could ever write to, without links."""


@dataclass(frozen=True, slots=True)
class HeldPath:
    """A path of a policy, and what was there when it was resolved."""

    shown: str
    """As the policy has it."""
    real: str
    """Without links."""
    fd: int
    writable: bool


class PolicyPaths:
    """The paths of one policy, until `close`."""

    def __init__(self, policy: SandboxPolicy) -> None:
        """Resolve the paths that there are.

        Raises:
            SpawnError: a path leads through a link that code can have made, or changes meanwhile.
            OSError: there is no room for another fd.
        """
        self.held: list[HeldPath] = []
        """Each path that is there, without those that others hold."""
        real = {path: os.path.realpath(path) for path in (*policy.readable, *policy.writable)}
        written = [real[path] for path in policy.writable]
        try:
            for writable, paths in (True, policy.writable), (False, policy.readable):
                tops = [real[path] for path in paths]
                for path in paths:
                    is_held = real[path] == path and any(path.startswith(f"{top}/") for top in tops)
                    if not is_held and os.path.lexists(real[path]):
                        self._hold(path, real[path], [*written, *_granted], writable=writable)
        except BaseException:
            self.close()
            raise
        self._identities = [_identity(os.fstat(held.fd)) for held in self.held]
        _grant(written)

    def _hold(self, path: str, real: str, written: Iterable[str], *, writable: bool) -> None:
        for link in _links_on_the_way(path):
            for folder in written:
                if link.startswith(f"{folder}/"):
                    raise SpawnError(
                        f"{path!r} of the policy leads through the link {link!r}, which lies in {folder!r}: "
                        "code can write there, and may have made it. Name what it is to lead to"
                    )
        fd = os.open(real, _HOLD)
        self.held.append(HeldPath(path, real, fd, writable))
        if os.readlink(f"/proc/self/fd/{fd}") != real or stat.S_ISLNK(os.fstat(fd).st_mode):
            raise SpawnError(f"{path!r} of the policy was changed while it was looked up")

    def again(self) -> "list[HeldPath]":
        """Return the paths with new descriptors, which are the caller's to close: for one that is closed.

        Raises:
            SpawnError: one is not what it was.
        """
        opened: list[HeldPath] = []
        try:
            for held, identity in zip(self.held, self._identities, strict=True):
                try:
                    fd = os.open(held.real, _HOLD)
                except OSError as error:
                    raise SpawnError(f"{held.real!r} of the policy is not there any more: {error}") from error
                opened.append(HeldPath(held.shown, held.real, fd, held.writable))
                if _identity(os.fstat(fd)) != identity:
                    raise SpawnError(  # noqa: TRY301 - all that is opened is closed below
                        f"{held.real!r} of the policy is not what it was when the session began"
                    )
        except BaseException:
            close_held(opened)
            raise
        return opened

    def close(self) -> None:
        """Close the descriptors. To be called once."""
        close_held(self.held)


def close_held(held: Iterable[HeldPath]) -> None:
    """Close the descriptors of paths."""
    for each in held:
        os.close(each.fd)


def as_request(held: Iterable[HeldPath]) -> list[tuple[str, str, bool]]:
    """Return paths as the launcher is told of them: it gets their descriptors too, in this order."""
    return [(each.shown, each.real, each.writable) for each in held]


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _links_on_the_way(path: str) -> Iterator[str]:
    """Yield the links that a path leads through, each by its path without links."""
    waiting = [part for part in path.split("/") if part]
    here = "/"
    for _ in range(_MAX_LINKS * len(path)):
        if not waiting:
            return
        part = waiting.pop(0)
        if part in (".", ".."):
            here = os.path.dirname(here) if part == ".." else here
            continue
        step = os.path.join(here, part)
        try:
            target = os.readlink(step)
        except OSError:
            here = step
            continue
        yield step
        here = "/" if target.startswith("/") else here
        waiting[:0] = [each for each in target.split("/") if each]


def _grant(paths: Iterable[str]) -> None:
    """Take note of folders that code can write to."""
    _granted.update(dict.fromkeys(paths))
    if len(_granted) > _PRUNED_AT:
        for path in [path for path in _granted if not os.path.lexists(path)]:
            with suppress(KeyError):
                del _granted[path]
