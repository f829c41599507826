"""What a cell did to the namespace and to files, for its last message, in sessions that ask for it."""

import os
from collections.abc import Collection

import msgspec

from pyrepl3_schemas.messages import Error, Result
from pyrepl3_worker.inspection.changes import NamespaceWatch
from pyrepl3_worker.inspection.file_changes import FileWatch
from pyrepl3_worker.namespace import NamespaceManager


class CellWatches:
    """Compares before and after each cell what `report` in `hello` names."""

    def __init__(self, report: Collection[str], namespace: NamespaceManager) -> None:
        """Watch the namespace, the present directory, or both."""
        self._names = NamespaceWatch(namespace) if "changed" in report else None
        self._files = FileWatch(os.getcwd()) if "files" in report else None

    def begin(self, execution_id: str) -> None:
        """Look at them: a cell begins."""
        if self._names is not None:
            self._names.begin(execution_id)
        if self._files is not None:
            self._files.begin(execution_id)

    def report(self, message: Result | Error, execution_id: str) -> Result | Error:
        """Return a cell's last message with what the cell has done to them."""
        names = None if self._names is None else self._names.end(execution_id)
        files = None if self._files is None else self._files.end(execution_id)
        return msgspec.structs.replace(message, changed=names, files=files)
