"""Import control: a guard rail for what the session's own code imports, not a boundary.

Code that wants around it gets around it (`importlib`, `sys.modules`, a library's own imports). What
must hold is confinement's job.
"""

import builtins
from collections.abc import Mapping, Sequence
from types import ModuleType

from pyrepl3_worker.config import ExecutorConfig


class ImportController:
    """Decides about imports by name: `a.b` is covered by what is said of `a.b` or of `a`."""

    def __init__(self, config: ExecutorConfig, namespace: Mapping[str, object]) -> None:
        """Check imports made from `namespace` alone, so that libraries import what they need."""
        self._config = config
        self._namespace = namespace
        self._import = builtins.__import__

    @property
    def restricts(self) -> bool:
        """Whether there is anything to check."""
        config = self._config
        return not config.allow_imports or config.allowed_modules is not None or bool(config.denied_modules)

    def install(self) -> None:
        """Check from now on; does nothing when nothing is restricted."""
        if self.restricts:
            builtins.__import__ = self.controlled_import

    def check(self, name: str) -> None:
        """Let a module name pass.

        Raises:
            ImportError: it may not be imported; says by which setting.
        """
        config = self._config
        if not config.allow_imports:
            raise ImportError(
                f"import of {name!r} refused: imports are off here (allow_imports=False)", name=name
            )
        if _covered(name, config.denied_modules):
            raise ImportError(f"import of {name!r} refused: it is in denied_modules", name=name)
        if config.allowed_modules is not None and not _covered(name, config.allowed_modules):
            raise ImportError(f"import of {name!r} refused: it is not in allowed_modules", name=name)

    def controlled_import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - the signature of __import__
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """Stand in for `builtins.__import__`."""
        if globals is self._namespace and level == 0:
            self.check(name)
        return self._import(name, globals, locals, fromlist, level)


def _covered(name: str, names: frozenset[str]) -> bool:
    while name:
        if name in names:
            return True
        name = name.rpartition(".")[0]
    return False
