"""ExecutorConfig, the executor's limits and choices; `hello` carries it, so the schemas define it."""

from pyrepl3_schemas.executor_config import ExecutorConfig

__all__ = ["ExecutorConfig"]
