"""The executor's limits and choices, as they travel in `hello`."""

from typing import Final

import msgspec

from pyrepl3_schemas.version import DEFAULT_MAX_FRAME_BYTES, MIN_MAX_FRAME_BYTES

MAX_SECONDS: Final = 10**9
"""The longest duration that means anything: some thirty years, and no more than timers can take."""

UPPER_LIMITS: Final[dict[str, int]] = {
    "max_execution_time": MAX_SECONDS,
    "max_memory_usage": 2**62,
    "max_output_bytes": 2**62,
}
"""Fields that are None or above 0, with the most they may be (what timers and rlimits can take)."""

COUNTS: Final[dict[str, tuple[int, int]]] = {
    "max_coroutines": (1, 2**32 - 1),
    "max_repr_chars": (64, 2**32 - 1),
    "max_frame_bytes": (MIN_MAX_FRAME_BYTES, 2**32 - 1),
    "cache_size": (0, 2**32 - 1),
}
"""The other figures, with the least and the most they may be."""


class ExecutorConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits and choices of one session's executor. `None` means no limit.

    The names are the specification's where it has one. `denied_modules` is empty by default and the
    time and memory limits are off: a session is somebody's own code until its owner says otherwise.
    """

    max_execution_time: float | None = None
    """Seconds that one execution may take; an execution's own `timeout` overrides it."""
    max_memory_usage: int | None = None
    """Bytes of private writable memory (RLIMIT_DATA) the worker may hold beyond what it starts with."""
    max_coroutines: int = 1000
    """Tasks that the session's code may have alive at once."""
    max_output_bytes: int | None = 128 * 1024 * 1024
    """UTF-8 bytes of output an execution may write; past it, the head and the last part are kept."""
    max_repr_chars: int = 1024 * 1024
    """Characters of a result's repr; a longer one keeps head and tail."""
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    """Bytes of the longest frame either side may send."""
    cache_size: int = 1000
    """Compiled cells that are kept; 0 turns the compilation cache off."""
    allow_imports: bool = True
    """False refuses every import that the session's own code makes."""
    allowed_modules: frozenset[str] | None = None
    """Module names (with their submodules) the session's own code may import; None means all."""
    denied_modules: frozenset[str] = frozenset()
    """Module names (with their submodules) the session's own code may not import."""
    auto_fix: bool = False
    """Run the mended code when a cell does not compile but its suggestion does."""

    def __post_init__(self) -> None:
        """Refuse figures that mean nothing, naming the field."""
        for name, most in UPPER_LIMITS.items():
            value: float | None = getattr(self, name)
            # The test is written so that a NaN fails it.
            if value is not None and not 0 < value <= most:
                raise ValueError(f"{name} must be None, or above 0 and at most {most}, not {value!r}")
        for name, (least, most) in COUNTS.items():
            count: int = getattr(self, name)
            if not least <= count <= most:
                raise ValueError(f"{name} must be between {least} and {most}, not {count!r}")
