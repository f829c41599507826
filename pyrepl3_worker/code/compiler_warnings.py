"""Finds out whether the compiler warns of a source, which is then compiled, and warned of, each time."""

import warnings
from typing import Any, Final, Self


class _Probed(type(Warning)):
    """The metaclass of a category to which no warning belongs, and which learns of each that comes."""

    met_one = False

    def __subclasscheck__(cls, subclass: type) -> bool:
        cls.met_one = True
        return False


class _NoWarning(Warning, metaclass=_Probed):
    """The category of a filter that passes everything on to the next one."""


_PROBE: Final = ("ignore", None, _NoWarning, None, 0)


class CompilerWarnings:
    """A context that finds out whether there was something to warn of, whatever the filters make of it.

    The filters are not changed by the functions for that: all modules would forget what they have warned of.
    """

    met = False
    """Whether there was, once the context is left."""

    def __enter__(self) -> Self:
        """Put the probe before the other filters."""
        filters: Any = warnings.filters  # the code may have put anything there
        self._filters: list[object] = filters if isinstance(filters, list) else []
        _NoWarning.met_one = False
        self._filters.insert(0, _PROBE)
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away, unless a `showwarning` of the code's has removed all filters."""
        self.met = _NoWarning.met_one
        if _PROBE in self._filters:
            self._filters.remove(_PROBE)
