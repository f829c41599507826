"""The environment variables of a worker, and the argument that describes its confinement."""

import os
from collections.abc import Mapping
from typing import Final

from pyrepl3_client._launch.interpreter import passed_on
from pyrepl3_client.config import WorkerConfig, max_strict_processes
from pyrepl3_schemas.confinement import Confinement, pack_confinement
from pyrepl3_schemas.constants import PROXY_ADDRESS

INHERITED_NAMES: Final = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "NO_COLOR",
        "TMPDIR", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR",
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
        "CUDA_VISIBLE_DEVICES", "MPLBACKEND",
    }
)  # fmt: skip
"""Environment variables that a confined worker inherits: they hold no secret, and programs need them."""
INHERITED_PREFIXES: Final = ("PYTHON", "LC_")
"""Variables whose names begin with one of these are inherited too."""
_PROXY: Final = "http://{}:{}".format(*PROXY_ADDRESS)
_OWN: Final = "localhost,127.0.0.1,::1"
"""What the code reaches in its own network."""
PROXY_VARIABLES: Final = {
    "HTTP_PROXY": _PROXY, "HTTPS_PROXY": _PROXY, "NO_PROXY": _OWN,
    "http_proxy": _PROXY, "https_proxy": _PROXY, "no_proxy": _OWN,
}  # fmt: skip
"""What has programs use the proxy, where a policy allows hosts. Not ALL_PROXY: other protocols have none."""


_WITHOUT_OURS: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
"""Variables of a worker that inherits none: programs are found, and texts are UTF-8, on any machine."""


def worker_environment(config: WorkerConfig, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a worker's environment: variables inherited and of the proxy, with those of `config.env` on top.

    An unconfined worker inherits all variables, a confined one those that hold no secret; another
    interpreter none that say where this one finds its modules; and with `inherit_env=False` none at all.

    Args:
        config: the confinement level and the additional variables.
        inherited: this process's environment; None is `os.environ`.
    """
    proxy = PROXY_VARIABLES if config.sandbox.host_rules else {}
    if not config.inherit_env:
        return {**_WITHOUT_OURS, **proxy, **(config.env or {})}
    ours: Mapping[str, str] = os.environ if inherited is None else inherited
    ours = passed_on(config, ours)
    if config.confinement != "none":
        ours = {
            name: value
            for name, value in ours.items()
            if name in INHERITED_NAMES or name.startswith(INHERITED_PREFIXES)
        }
    return {**ours, **proxy, **(config.env or {})}


def confinement_argument(config: WorkerConfig) -> str:
    """Return the value of the command line option `--confine` of a worker that confines itself."""
    return pack_confinement(confinement_of(config))


def confinement_of(config: WorkerConfig) -> Confinement:
    """Return how a worker is to be confined."""
    policy, limits = config.sandbox, config.limits
    return Confinement(
        level=config.confinement,
        required=config.confinement_required,
        readable=policy.readable,
        writable=policy.writable,
        network=bool(policy.network),
        proxied=bool(policy.host_rules),
        work_bytes=policy.work_bytes,
        max_processes=max_strict_processes(limits)
        if config.confinement == "strict"
        else limits.max_processes,
        max_memory_bytes=limits.max_memory_bytes,
        max_cpu_seconds=limits.max_cpu_seconds,
        max_open_files=limits.max_open_files,
        max_file_bytes=limits.max_file_bytes,
    )
