"""The executor's limits and choices; they travel in `hello`, so the contract's package defines them."""

from pyrepl3_schemas.executor_config import ExecutorConfig

__all__ = ["ExecutorConfig"]
