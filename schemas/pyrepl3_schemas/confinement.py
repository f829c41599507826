"""The confinement of a worker, as its command line tells it: it holds before any user code is loaded."""

from typing import Final, Literal

import msgspec

type Level = Literal["none", "limits", "strict"]

DEFAULT_WORK_BYTES: Final = 256 * 1024 * 1024
DEFAULT_MAX_PROCESSES: Final = 512


class Confinement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a worker confines itself before it reads `hello`. `None` means no limit."""

    level: Level = "limits"
    required: bool = True
    """If the worker cannot apply all of it: True ends it with status 78, False goes on, and `ready` tells."""
    readable: tuple[str, ...] = ()
    """Absolute paths that the code can read, besides Python's own and the system's libraries."""
    writable: tuple[str, ...] = ()
    """Absolute paths that the code can read and write."""
    network: bool = False
    """Whether the code may use the network as the worker's user can."""
    proxied: bool = False
    """Whether the parent is to get a socket that listens at `PROXY_ADDRESS` in the code's own network."""
    work_bytes: int = DEFAULT_WORK_BYTES
    """Bytes that the work directory `/tmp`, and `/dev/shm`, may each hold."""
    max_processes: int | None = None
    """Processes and threads that may exist at once."""
    max_memory_bytes: int | None = None
    """Bytes of private writable memory that each process may have."""
    max_cpu_seconds: int | None = None
    """Seconds of CPU time that each process may use."""
    max_open_files: int | None = None
    """Files that each process may have open."""
    max_file_bytes: int | None = None
    """Bytes that any file may have after a write."""


class InForce(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was put in force before a worker's interpreter was started: the value of `--confined`."""

    features: tuple[str, ...]
    """Features and limits, as checked from inside."""
    limits: dict[str, int]
    """The limits among them, and their values."""
    own_directory: str | None
    """The directory that is the worker's alone."""
    environment: dict[str, str]
    """Variables that it sets for the code."""


def unpack_in_force(text: str) -> InForce:
    """Return what a `--confined` argument says.

    Args:
        text: the argument.

    Raises:
        ValueError: the text is not JSON of that form; says where.
    """
    return msgspec.json.decode(text, type=InForce)


def pack_confinement(confinement: Confinement) -> str:
    """Return a confinement as the argument of `--confine`, which is JSON.

    Args:
        confinement: what the worker is to apply.
    """
    return msgspec.json.encode(confinement).decode()


def unpack_confinement(text: str) -> Confinement:
    """Return the confinement of a `--confine` argument.

    Args:
        text: the argument.

    Raises:
        ValueError: the text is not JSON of that form; says where.
    """
    return msgspec.json.decode(text, type=Confinement)
