"""What a process that `multiprocessing` has started does with the session's definitions: see `sent`."""

import os
import sys
from io import BytesIO
from pickle import Unpickler
from types import FunctionType
from typing import Any, Final, NoReturn

from pyrepl3_worker.checkpoint import by_value

_MAX_KNOWN: Final = 256
_known: dict[bytes, Any] = {}
"""What was received, or sent, by its token: the same again is the same object."""
_senders: set[int] = set()
"""Processes that this one was forked from, or is, that send definitions."""
_given: dict[str, Any] = {}
"""The values that names of this process's `__main__` got from the session."""


def remember(token: bytes, value: Any) -> None:
    """Know a definition by its token, here and in processes that are forked from now on."""
    if len(_known) >= _MAX_KNOWN:
        del _known[next(iter(_known))]
    _known[token] = value


def note_sender(pid: int) -> None:
    """Note, for the processes that are forked from now on, that this one sends definitions."""
    _senders.add(pid)


def receive_definition(
    name: str, pid: int, ident: int, token: bytes, data: bytes, buffers: list[bytearray]
) -> Any:
    """Return a function or class of the session.

    Args:
        name: what it is called there.
        pid: of the session's process.
        ident: its `id` there.
        token: what is received again under the same token is the same object.
        data: its pickle.
        buffers: the memory of the arrays in it.
    """
    if token not in _known:
        own = vars(sys.modules["__main__"]).get(name)
        # A process that was forked has it already, at the same place in memory.
        forked = pid in _senders and id(own) == ident
        remember(token, own if forked else _MainUnpickler(data, buffers).load())
    return _known[token]


def receive(data: bytes, buffers: list[bytearray]) -> Any:
    """Return a definition of the session, and put it and the globals that it uses into `__main__`.

    A name that this process has bound itself keeps its value, as what an initializer has set.
    """
    main = vars(sys.modules["__main__"])
    value, sent, not_sent = _MainUnpickler(data, buffers).load()
    if os.getpid() in _senders:
        return value  # the session's own process, where it came from
    for name, new in sent.items():
        is_definition = type(new) is FunctionType or isinstance(new, type)
        if is_definition or name not in main or (name in _given and main[name] is _given[name]):
            main[name] = _given[name] = new
    for name, reason in not_sent.items():
        main.setdefault(name, NotSent(name, reason))
    return value


class _MainUnpickler(Unpickler):
    """Loads functions whose globals are `__main__`'s."""

    def __init__(self, data: bytes, buffers: list[bytearray]) -> None:
        super().__init__(BytesIO(data), buffers=buffers)

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) == (by_value.__name__, "LIVE_NAMESPACE"):
            return vars(sys.modules["__main__"])
        return super().find_class(module_name, global_name)


class NotSent:
    """Stands for a global that could not be sent; whatever is done to it says so."""

    def __init__(self, name: str, reason: str) -> None:
        """Stand for `name`; `reason` says why it could not be sent."""
        self.__dict__.update(_name=name, _reason=reason)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        own = self.__dict__
        raise RuntimeError(
            f"the global {own['_name']!r} was not sent to this process: {own['_reason']}; make it there "
            "(in an initializer), or pass what it holds as an argument"
        )

    __getattr__ = __setattr__ = __call__ = __iter__ = __len__ = __bool__ = __getitem__ = __setitem__ = _refuse
    __next__ = __await__ = __delitem__ = __int__ = __float__ = __index__ = __eq__ = __hash__ = _refuse  # type: ignore[assignment]
    __contains__ = __enter__ = __exit__ = __add__ = __sub__ = __mul__ = __truediv__ = __lt__ = __gt__ = (
        _refuse
    )
