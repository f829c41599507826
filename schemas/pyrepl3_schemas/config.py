"""The public import path of `ExecutorConfig`, which is defined in `executor_config`."""

from pyrepl3_schemas.executor_config import ExecutorConfig

__all__ = ["ExecutorConfig"]
