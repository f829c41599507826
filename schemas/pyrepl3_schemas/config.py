"""The executor's limits and choices, as they travel in `hello`."""

import msgspec

from pyrepl3_schemas.version import DEFAULT_MAX_FRAME_BYTES, MIN_MAX_FRAME_BYTES


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
        for name in ("max_execution_time", "max_memory_usage", "max_output_bytes"):
            value: float | None = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive or None, not {value!r}")
        for name, least in (
            ("max_coroutines", 1),
            ("max_repr_chars", 64),
            ("max_frame_bytes", MIN_MAX_FRAME_BYTES),
            ("cache_size", 0),
        ):
            count: int = getattr(self, name)
            if not least <= count <= 2**32 - 1:
                raise ValueError(f"{name} must be between {least} and {2**32 - 1}, not {count!r}")
