"""What bounds a worker, as it travels on its command line: before anything of the code's is near."""

from typing import Final, Literal

import msgspec

type Level = Literal["none", "limits", "strict"]

DEFAULT_WORK_BYTES: Final = 256 * 1024 * 1024
DEFAULT_MAX_PROCESSES: Final = 512
WORK_DIRECTORY: Final = "/tmp"  # noqa: S108 - a file system of the worker's own, made for it and gone with it
"""The writable directory of a strictly confined worker."""


class Confinement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The boundary that a worker puts itself behind before it reads `hello`. `None` means no limit."""

    level: Level = "limits"
    required: bool = True
    """Whether a worker that can't have all of it ends, with status 78; else it goes on and `ready` tells."""
    readable: tuple[str, ...] = ()
    """Absolute paths to be seen besides Python's own and the system's libraries."""
    writable: tuple[str, ...] = ()
    """Absolute paths to be seen and written to."""
    network: bool = False
    """Whether the code may use the network as its user can."""
    tcp_ports: tuple[int, ...] = ()
    """Ports to which the code may connect by TCP, on any host; nothing else of the network."""
    work_bytes: int = DEFAULT_WORK_BYTES
    """Bytes that the temporary work directory, and `/dev/shm`, may each hold."""
    max_processes: int | None = None
    """Processes and threads at once."""
    max_memory_bytes: int | None = None
    """Private writable memory of each process."""
    max_cpu_seconds: int | None = None
    """CPU time of each process."""
    max_open_files: int | None = None
    """Open files of each process."""
    max_file_bytes: int | None = None
    """Bytes of any file that is written."""


def pack_confinement(confinement: Confinement) -> str:
    """Give the argument of `--confine`: JSON."""
    return msgspec.json.encode(confinement).decode()


def unpack_confinement(text: str) -> Confinement:
    """Read the argument of `--confine`.

    Raises:
        ValueError: it is no such thing; says where.
    """
    return msgspec.json.decode(text, type=Confinement)
