"""Import control: a guard rail for the imports of the session's own code, not a boundary.

Code can bypass it (by `importlib`, `sys.modules` or a library's own imports). The boundary is
confinement.
"""

import builtins
from collections.abc import Mapping, Sequence
from types import ModuleType

from pyrepl3_worker.config import ExecutorConfig


class ImportController:
    """Allows and denies imports by name: `a.b` is covered by an entry for `a.b` or for `a`."""

    def __init__(self, config: ExecutorConfig, namespace: Mapping[str, object]) -> None:
        """Check only imports made from `namespace`, so that libraries import what they need.

        Args:
            config: its `allow_imports`, `allowed_modules` and `denied_modules`.
            namespace: the globals of the session's code.
        """
        self._config = config
        self._namespace = namespace
        self._import = builtins.__import__

    @property
    def restricts(self) -> bool:
        """Whether the configuration restricts imports at all."""
        config = self._config
        return not config.allow_imports or config.allowed_modules is not None or bool(config.denied_modules)

    def install(self) -> None:
        """Replace `builtins.__import__`, if the configuration restricts imports."""
        if self.restricts:
            builtins.__import__ = self.controlled_import

    def check(self, name: str) -> None:
        """Return if a module may be imported.

        Args:
            name: the module's full name.

        Raises:
            ImportError: it may not be imported; the message names the setting.
        """
        config = self._config
        if not config.allow_imports:
            raise ImportError(
                f"import of {name!r} refused: imports are off here (allow_imports=False)", name=name
            )
        if _is_covered(name, config.denied_modules):
            raise ImportError(f"import of {name!r} refused: it is in denied_modules", name=name)
        if config.allowed_modules is not None and not _is_covered(name, config.allowed_modules):
            raise ImportError(f"import of {name!r} refused: it is not in allowed_modules", name=name)

    def controlled_import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - the signature of __import__
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """Check an import, then make it; has the signature of `builtins.__import__`.

        Raises:
            ImportError: the module may not be imported, or does not exist.
        """
        if globals is self._namespace and level == 0:
            self.check(name)
        return self._import(name, globals, locals, fromlist, level)


def _is_covered(name: str, names: frozenset[str]) -> bool:
    while name:
        if name in names:
            return True
        name = name.rpartition(".")[0]
    return False
