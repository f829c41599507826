"""The requests `set` and `get`: variables of the namespace, of any size."""

from difflib import get_close_matches
from functools import partial
from typing import Any, Final

from pyrepl3_schemas.large_values import decode_body, encode_body
from pyrepl3_schemas.transfer import Body
from pyrepl3_worker.namespace import NamespaceManager
from pyrepl3_worker.session.transfer_limit import TransferLimit

_MISSING: Final = object()


class Variables:
    """Binds and reads the namespace's variables for the client."""

    def __init__(self, namespace: NamespaceManager, limit: TransferLimit) -> None:
        """Work on a namespace; `limit` ends the own code of values that takes too long."""
        self._namespace = namespace
        self._limit = limit

    def set(self, body: Body) -> Body:
        """Bind all variables of a map of values by name, or none of them.

        Raises:
            RemoteProtocolError: a value cannot be made here.
            MemoryError: there is not enough memory.
        """
        self._namespace.update_namespace(decode_body(body, trusted=True), "set")
        return Body()

    def get(self, body: Body) -> Body:
        """Return the value of the variable `name` in `seconds`, data frames as tables if `arrow` is there.

        Raises:
            BudgetExceeded: it took longer.
            NameError: there is no such variable.
            LocalProtocolError: its value, or something inside of it, has no form.
            MemoryError: there is not enough memory.
        """
        asked: dict[str, Any] = decode_body(body, trusted=True)
        name: str = asked["name"]
        namespace = self._namespace.namespace
        value = namespace.get(name, _MISSING)
        if value is _MISSING:
            names = [known for known in namespace if known not in self._namespace.hidden_names]
            similar = get_close_matches(name, names, 1)
            raise NameError(
                f"there is no variable {name!r} in the session"
                + (f"; did you mean {similar[0]!r}?" if similar else "")
            )
        frames = bool(asked.get("arrow"))
        # No function of the worker may stand between the limit and the value's own code.
        return self._limit.run(asked.get("seconds"), partial(encode_body, value, frames=frames))
