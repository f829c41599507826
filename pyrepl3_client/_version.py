"""The version of pyrepl3. The package's metadata is built from this line (see `pyproject.toml`).

It is a constant and not asked of `importlib.metadata`, which is slow to import.
"""

__version__ = "0.1.0"
