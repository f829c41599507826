"""The executor's limits and options, as they travel in `hello`."""

import operator
from typing import Any, Final, Literal, SupportsFloat, SupportsIndex, get_args

import msgspec

from pyrepl3_schemas.constants import DEFAULT_MAX_FRAME_BYTES, MIN_MAX_FRAME_BYTES

MAX_SECONDS: Final = 10**9
"""The longest duration: some thirty years, which timers can still take."""

UPPER_LIMITS: Final[dict[str, int]] = {
    "max_execution_time": MAX_SECONDS,
    "max_memory_usage": 2**62,
    "max_output_bytes": 2**62,
    "max_display_bytes": 2**62,
}
"""Fields that are None or above 0, with their largest value (what timers and rlimits can take)."""

COUNT_RANGES: Final[dict[str, tuple[int, int]]] = {
    "max_coroutines": (1, 2**32 - 1),
    "max_repr_chars": (64, 2**32 - 1),
    "max_frame_bytes": (MIN_MAX_FRAME_BYTES, 2**32 - 1),
    "cache_size": (0, 2**32 - 1),
}
"""The other numbers, with their smallest and largest values."""


_SHOWN_CHARS: Final = 200

type Blocking = Literal["auto", "thread", "loop"]
type Syntax = Literal["python", "ipython"]
_SYNTAXES: Final = get_args(Syntax.__value__)


class ExecutorConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """Limits and options of one session's executor. `None` means no limit.

    Where the specification has a name, this is it. `denied_modules` is empty by default and there are no
    time and memory limits: by default, a session runs the user's own code.
    """

    max_execution_time: float | None = None
    """Seconds that one execution may take; the `timeout` of an execution overrides it."""
    max_memory_usage: int | None = None
    """Bytes of private writable memory (RLIMIT_DATA) that the worker may have beyond what it starts with."""
    max_coroutines: int = 1000
    """Tasks that the session's code may have alive at once."""
    max_output_bytes: int | None = 128 * 1024 * 1024
    """Bytes of UTF-8 that are kept of an execution's output; of longer output, the head and the tail."""
    max_display_bytes: int | None = 128 * 1024 * 1024
    """Bytes of rich data that an execution may show: displays, and `data` of its value. In place of what does
    not fit stands a text that says of what type and size it was."""
    max_repr_chars: int = 1024 * 1024
    """Characters of a result's repr; of a longer one, the head and the tail are kept."""
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    """Bytes of the longest frame body that either side may send."""
    cache_size: int = 1000
    """Compiled cells that are kept; 0 turns the compilation cache off."""
    allow_imports: bool = True
    """False refuses every import in the session's own code."""
    allowed_modules: frozenset[str] | None = None
    """Names of modules that the session's own code may import, with their submodules; None means all."""
    denied_modules: frozenset[str] = frozenset()
    """Names of modules that the session's own code may not import, with their submodules."""
    auto_fix: bool = False
    """Whether to run the suggested code when a cell does not compile and its suggestion does."""
    blocking: Blocking = "auto"
    """Where code that blocks runs. `"loop"`: on the loop's thread, like all other code. `"thread"`: on a
    thread of its own. `"auto"`: on the loop's thread, unless the loop has a task, reader, server or timer of
    the code's to serve when the cell begins."""
    syntax: Syntax = "python"
    """What a cell may hold: Python, or with "ipython" also magics (`%time`), `!commands` and `help?`.

    IPython must then be installed where the worker runs."""

    def __post_init__(self) -> None:
        """Check all fields, and convert numbers and sets to the types that are sent.

        Raises:
            ValueError: a number is out of its range; names the field.
            TypeError: a value has a wrong type; names the field.
        """
        for name, most in UPPER_LIMITS.items():
            given: Any = getattr(self, name)
            if given is None:
                continue
            value = as_float(name, given) if name == "max_execution_time" else as_int(name, given)
            # Written so that a NaN fails it.
            if not 0 < value <= most:
                raise ValueError(f"{name} must be None, or above 0 and at most {most}, not {shown(given)}")
            self._set_field(name, value)
        for name, (least, most) in COUNT_RANGES.items():
            given = getattr(self, name)
            count = as_int(name, given)
            if not least <= count <= most:
                raise ValueError(f"{name} must be between {least} and {most}, not {shown(given)}")
            self._set_field(name, count)
        for name in ("allow_imports", "auto_fix"):
            if type(getattr(self, name)) is not bool:
                raise TypeError(f"{name} must be True or False, not {shown(getattr(self, name))}")
        if self.blocking not in get_args(Blocking.__value__):
            raise ValueError(f'blocking must be "auto", "thread" or "loop", not {shown(self.blocking)}')
        if self.syntax not in _SYNTAXES:
            raise ValueError(f"syntax must be {' or '.join(map(repr, _SYNTAXES))}, not {shown(self.syntax)}")
        self._set_field("denied_modules", _module_names("denied_modules", self.denied_modules))
        if self.allowed_modules is not None:
            self._set_field("allowed_modules", _module_names("allowed_modules", self.allowed_modules))

    def _set_field(self, name: str, value: object) -> None:
        if value is not getattr(self, name):
            msgspec.structs.force_setattr(self, name, value)


def shown(value: object) -> str:
    """Return a value as an error shows it: its repr, shortened, or its type where it has none.

    Args:
        value: anything, also what a caller has passed by mistake.
    """
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - of any `__repr__`; a huge int has none either
        return f"a value of type {type(value).__name__} ({type(error).__name__} in its repr)"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text):,} characters)"


def as_float(what: str, value: SupportsFloat) -> float:
    """Return any real number as an exact float or int, since subclasses of them cannot be sent.

    Args:
        what: the name of the field.
        value: the number.

    Raises:
        TypeError: `value` is not a number; names `what`. A bool and a str of digits are not numbers.
    """
    if type(value) is float or type(value) is int:
        return value
    if isinstance(value, bool | str | bytes | bytearray):
        raise TypeError(f"{what} must be a number, not {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        return float("inf")
    except TypeError:
        raise TypeError(f"{what} must be a number, not {shown(value)}") from None


def as_int(what: str, value: SupportsIndex) -> int:
    """Return any whole number as an exact int.

    Args:
        what: the name of the field.
        value: the number.

    Raises:
        TypeError: `value` is not a whole number; names `what`. A bool is not one.
    """
    if type(value) is int:
        return value
    try:
        if isinstance(value, bool):
            raise TypeError  # noqa: TRY301 - the message is in one place
        return int(operator.index(value))
    except TypeError:
        raise TypeError(f"{what} must be a whole number, not {shown(value)}") from None


def _module_names(what: str, names: frozenset[str]) -> frozenset[str]:
    if type(names) is frozenset and not names:
        return names
    if not isinstance(names, frozenset | set | list | tuple):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise TypeError(f"{what} must be a set of module names, not {shown(names)}")
    for name in names:
        if type(name) is not str:
            raise TypeError(f"{what} must be a set of module names; it holds {shown(name)}")
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{what} holds {shown(name)}, which is no module's name")
    return frozenset(names)
