"""What a host function is to the code: its name, its kind, its signature; and how it may be called.

Nothing that is bound to a host function on the host is shown, and nothing of it can be passed: the arguments
of `functools.partial`, a method's `self`, a parameter for the call's context, and a parameter with a default
whose name begins with an underscore.
"""

import functools
import inspect
import keyword
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast, get_args

from pyrepl3_client.config import (
    ErrorDetail,
    checked_bool,
    checked_callable,
    checked_choice,
    checked_seconds,
)
from pyrepl3_client.errors import CapabilityError
from pyrepl3_schemas.constants import MAX_ID_CHARS
from pyrepl3_schemas.executor_config import as_int, shown
from pyrepl3_schemas.messages import CapabilitySpec
from pyrepl3_schemas.reserved_names import why_reserved

_EMPTY: Final = inspect.Parameter.empty
_MAX_WRAPPERS: Final = 20
_SHOWN_NAMES: Final = 3


class CallProgress:
    """How a call stands, for its `CallContext`."""

    __slots__ = ("abandoned",)

    def __init__(self) -> None:
        """Begin with a call that the code waits for."""
        self.abandoned = False


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a host function may know of its call: a parameter annotated with this class receives it.

    The worker's code neither sees nor passes that parameter.
    """

    execution_id: str
    """The execution whose code calls."""
    call_id: str
    """The same for each attempt at the call, so it can serve as an idempotency key."""
    attempt: int = 1
    """The number of this attempt at the call, from 1."""
    _progress: CallProgress = field(default_factory=CallProgress, init=False, repr=False, compare=False)

    @property
    def abandoned(self) -> bool:
        """Whether the code has given the call up, and does not get what it returns.

        An `async` function is cancelled then; one that runs in a thread may look at this.
        """
        return self._progress.abandoned


def make_context(execution_id: str, call_id: str, attempt: int, progress: CallProgress) -> CallContext:
    """Return the context of a call that stands as `progress` says."""
    context = CallContext(execution_id, call_id, attempt)
    object.__setattr__(context, "_progress", progress)
    return context


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call that waits for approval, as the predicate of `capability(approve=…)` gets it."""

    name: str
    """The host function's name in the session."""
    args: tuple[Any, ...]
    """The positional arguments that the code passes."""
    kwargs: dict[str, Any]
    """The keyword arguments that the code passes."""
    execution_id: str
    """The execution whose code calls."""
    call_id: str
    """The call's id: the same when the predicate is asked again, because its program had ended."""


type Approve = Callable[[CallRequest], bool | Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Capability:
    """A host function and how it may be called. Made by `capability`."""

    function: Callable[..., Any]
    """What to call, `async` or not."""
    repeatable: bool = False
    """Whether it may be called again for a call whose outcome is not known."""
    timeout: float | None = None
    """Seconds that one call may take, None for as long as it takes."""
    awaitable: bool | None = None
    """Whether a call gives an awaitable; None: as the function itself does."""
    errors: ErrorDetail | None = None
    """What the code sees of an exception; None: what the session's configuration says."""
    max_calls: int | None = None
    """How often it may be called, None for any number."""
    approve: Approve | None = None
    """Decides about each call before it is made."""
    pauses_timeout: bool = False
    """Whether the time limit of the cell stands still while a call is unanswered."""


def capability(
    function: Callable[..., Any],
    *,
    repeatable: bool = False,
    timeout: float | None = None,
    awaitable: bool | None = None,
    errors: ErrorDetail | None = None,
    max_calls: int | None = None,
    approve: Approve | None = None,
    pauses_timeout: bool = False,
) -> Capability:
    """Describe how a host function may be called; without this it is not repeatable and has no limits.

    Example:
        `capability(pay, approve=ask_the_owner, max_calls=3)`

    Args:
        function: what to call, `async` or not; a plain one runs in a thread and may block.
        repeatable: it may be called again for a call whose outcome is not known.
        timeout: seconds that one call may take; past that the code gets a TimeoutError.
        awaitable: whether a call gives the code an awaitable (True), or blocks and gives the value (False);
            None: an `async def` gives an awaitable, anything else blocks.
        errors: `shown`: the code sees an exception's type, text, notes, cause and members; `masked`: its type
            and the call's id alone; None: as `WorkerConfig.host_errors` has it. All are logged on the host
            (`pyrepl3.calls`).
        max_calls: how often it may be called while the session is open; past that the code gets a
            CapabilityError that names this budget.
        approve: decides about each call before it is made; gets a `CallRequest`, may be `async`, and may take
            days. False is a PermissionError in the code. It is asked again if the program ends before it has
            answered and the session comes back.
        pauses_timeout: the execution's time limit stands still while a call is unanswered and the session's
            processes compute less than 5 % of a core, as it does while a prompt is, or an approval.

    Returns:
        What `capabilities=` takes in the place of the function.

    Raises:
        ValueError: `timeout` is not above 0, or above 1e9; `max_calls` is below 0; `errors` is another word.
        TypeError: an argument is of the wrong type.
    """
    if not callable(function):
        raise TypeError(f"function must be what the code calls, not {shown(function)}")
    checked_bool("repeatable", repeatable)
    if awaitable is not None:
        checked_bool("awaitable", awaitable)
    checked_callable("approve", approve)
    checked_bool("pauses_timeout", pauses_timeout)
    if timeout is not None:
        timeout = checked_seconds("timeout", timeout)
    if errors is not None:
        checked_choice("errors", errors, get_args(ErrorDetail.__value__))
    if max_calls is not None:
        max_calls = as_int("max_calls", max_calls)
        if max_calls < 0:
            raise ValueError(f"max_calls must not be below 0, and is {shown(max_calls)}")
    return Capability(function, repeatable, timeout, awaitable, errors, max_calls, approve, pauses_timeout)


@dataclass(slots=True)
class Offered:
    """A capability, what inspecting its function has found, and how often it was called."""

    name: str
    options: Capability
    is_async: bool
    spec: CapabilitySpec
    signatures: tuple[inspect.Signature, inspect.Signature] | None
    """The function's own, and what the code may pass of it, where anything is hidden; None: all is shown."""
    hidden: frozenset[str]
    """Names that the code may not pass."""
    context_parameter: str | None
    calls: int = 0

    @property
    def takes(self) -> Callable[..., Any]:
        """The function itself."""
        return self.options.function

    def arguments(
        self, args: list[Any], kwargs: dict[str, Any], context: CallContext
    ) -> tuple[list[Any] | tuple[Any, ...], dict[str, Any]]:
        """Return what the function is called with for what the code has passed.

        Raises:
            TypeError: the code passes what the function does not take, or what is hidden from it.
        """
        hidden = self.hidden.intersection(kwargs)
        if hidden:
            raise TypeError(f"{self.name}() got an unexpected keyword argument {min(hidden)!r}")
        if self.signatures is None:
            return args, kwargs
        own, visible = self.signatures
        try:
            given = visible.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        for name in self.hidden & own.parameters.keys():
            # What is bound to it is its default. It is passed too, so that `*args` come after it.
            given[name] = context if name == self.context_parameter else own.parameters[name].default
        bound = inspect.BoundArguments(own, {name: given[name] for name in own.parameters if name in given})  # pyright: ignore[reportArgumentType] - any dictionary that keeps its order does
        return bound.args, bound.kwargs


def inspect_capability(name: str, given: Capability | Callable[..., Any]) -> Offered:
    """Find out what a capability is to the code.

    Raises:
        CapabilityError: the name or the function cannot be used; the message names it.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise CapabilityError(f"a capability's name must be a string, not {shown(name)}")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise CapabilityError(f"{shown(name)} cannot be called by that name: it is no Python identifier")
    if len(name) > MAX_ID_CHARS:
        raise CapabilityError(f"the name {shown(name)} is too long: {MAX_ID_CHARS} characters are the most")
    reserved = why_reserved(name)
    if reserved:
        raise CapabilityError(f"capability {name!r} needs another name: {reserved}")
    return describe_offer(name, given if isinstance(given, Capability) else Capability(given))


def describe_offer(name: str, options: Capability) -> Offered:
    """Find out what a capability is to the code, whatever its name.

    Raises:
        CapabilityError: the function cannot be used.
    """
    function = options.function
    if not callable(function):
        raise CapabilityError(f"capability {name!r} cannot be called: it is {shown(function)}")
    is_async = inspect.iscoroutinefunction(function) or (
        not inspect.isroutine(function) and inspect.iscoroutinefunction(type(function).__call__)
    )
    awaitable = is_async if options.awaitable is None else options.awaitable
    hidden = _bound_keywords(function)
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        # Some functions written in C have no signature.
        spec = CapabilitySpec(name, doc=_doc(function), awaitable=awaitable)
        return Offered(name, options, is_async, spec, None, hidden, None)
    parameters = list(signature.parameters.values())
    context = next((parameter.name for parameter in parameters if _wants_context(parameter)), None)
    hidden |= {p.name for p in parameters if p.name == context or _is_private(p)}
    visible = signature.replace(parameters=[p for p in parameters if p.name not in hidden])
    spec = CapabilitySpec(name, _text_of(visible), _doc(function), awaitable)
    return Offered(name, options, is_async, spec, (signature, visible) if hidden else None, hidden, context)


def checked_capabilities(
    capabilities: Mapping[str, Capability | Callable[..., Any]] | None,
) -> dict[str, Capability | Callable[..., Any]]:
    """Return capabilities by their names, once it is checked that they can be offered.

    Raises:
        TypeError: they are no mapping; the message says what to pass.
        CapabilityError: a name or a function cannot be used; the message names it.
    """
    if capabilities is None:
        return {}
    if not isinstance(capabilities, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise TypeError(
            "capabilities must map the names that the code calls to functions, as in "
            f"{_as_mapping(capabilities)}, not {shown(capabilities)}"
        )
    for name, given in capabilities.items():
        inspect_capability(name, given)
    return dict(capabilities)


def _as_mapping(capabilities: Any) -> str:
    """Return the mapping that functions without names may be meant as."""
    several = isinstance(capabilities, list | tuple | set | frozenset)
    given = cast("Iterable[Any]", capabilities) if several else [capabilities]
    functions: list[Any] = [each.function if isinstance(each, Capability) else each for each in given]
    names = [each.__name__ for each in functions if inspect.isroutine(each) and each.__name__.isidentifier()]
    if not names:
        return '{"search": search}'
    more = ", …" if len(names) > _SHOWN_NAMES else ""
    return f"{{{', '.join(f'"{name}": {name}' for name in names[:_SHOWN_NAMES])}{more}}}"


def _bound_keywords(function: Any) -> frozenset[str]:
    """Return the names that `functools.partial` has bound, wherever it stands in what a call reaches."""
    names: set[str] = set()
    for _ in range(_MAX_WRAPPERS):
        if isinstance(function, functools.partial | functools.partialmethod):
            names.update(function.keywords)
            function = function.func
            continue
        inner = getattr(function, "__partialmethod__", None) or getattr(function, "__wrapped__", None)
        inner = inner or getattr(function, "__func__", None)
        if inner is None:
            break
        function = inner
    return frozenset(names)


def _is_private(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is there to hold a value of the host's: `def f(word, _key=key)`."""
    return parameter.name.startswith("_") and parameter.default is not _EMPTY


def _wants_context(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        # `from __future__ import annotations`: the name it goes by, without evaluating anything.
        return annotation.rpartition(".")[2] == CallContext.__name__
    return annotation is CallContext


class _Shown:
    """Stands in a signature for a value, with the text that is shown of it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _text_of(signature: inspect.Signature) -> str:
    """Return a signature as text, in which no default but None, True and False shows its value."""
    parameters = [
        parameter.replace(
            default=parameter.default
            if parameter.default is _EMPTY or _tells_nothing(parameter.default)
            else _Shown("..."),
            annotation=_unquoted(parameter.annotation),
        )
        for parameter in signature.parameters.values()
    ]
    text = signature.replace(parameters=parameters, return_annotation=_unquoted(signature.return_annotation))
    return str(text)


def _tells_nothing(default: object) -> bool:
    return default is None or default is True or default is False


def _unquoted(annotation: Any) -> Any:
    """Return an annotation that was kept as text (`from __future__ import annotations`) as that text."""
    return _Shown(annotation) if isinstance(annotation, str) else annotation


def _doc(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func  # whose own text is that of the class `partial`
    return inspect.getdoc(function) or ""
