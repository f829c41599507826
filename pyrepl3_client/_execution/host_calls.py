"""The host functions that the session's code may call: how they are offered, called and answered."""

import asyncio
import inspect
import keyword
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.answering import AnsweringTasks, encodable, text_of
from pyrepl3_client._execution.serving import until_served
from pyrepl3_client.config import checked_seconds
from pyrepl3_client.errors import CapabilityError, ProtocolError
from pyrepl3_schemas.codec import decode_value, encode_value
from pyrepl3_schemas.errors import LocalProtocolError, RemoteProtocolError
from pyrepl3_schemas.messages import Call, CallError, CallResponse, CapabilitySpec
from pyrepl3_schemas.reserved_names import why_reserved


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


@dataclass(frozen=True, slots=True)
class Capability:
    """A host function and how it may be called. Made by `capability`."""

    function: Callable[..., Any]
    """What to call, `async` or not."""
    repeatable: bool = False
    """Whether it may be called again for a call whose outcome is not known."""
    timeout: float | None = None
    """Seconds that one call may take, None for as long as it takes."""


def capability(
    function: Callable[..., Any], *, repeatable: bool = False, timeout: float | None = None
) -> Capability:
    """Describe how a host function may be called; without this it is not repeatable and has no timeout.

    Args:
        function: what to call, `async` or not; a plain one runs in a thread and may block.
        repeatable: it may be called again for a call whose outcome is not known.
        timeout: seconds that one call may take; past that the code gets a TimeoutError.

    Returns:
        The host function with these options, for the `capabilities` of a session.

    Returns:
        What `capabilities=` takes in the place of the function.

    Raises:
        ValueError: `timeout` is not above 0, or above 1e9.
        TypeError: `timeout` is no number.
    """
    if timeout is not None:
        timeout = checked_seconds("timeout", timeout)
    return Capability(function, repeatable, timeout)


@dataclass(frozen=True, slots=True)
class _Offer:
    """A capability, and what inspecting its function has found."""

    name: str
    call: Callable[..., Any]
    is_async: bool
    context_parameter: str | None
    timeout: float | None
    repeatable: bool
    spec: CapabilitySpec


def _offer(name: str, given: Capability | Callable[..., Any]) -> _Offer:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise CapabilityError(f"{name!r} cannot be called by that name: it is no Python identifier")
    reserved = why_reserved(name)
    if reserved:
        raise CapabilityError(f"capability {name!r} needs another name: {reserved}")
    offered = given if isinstance(given, Capability) else Capability(given)
    function = offered.function
    if not callable(function):
        raise CapabilityError(f"capability {name!r} cannot be called: it is a {type(function).__name__}")
    is_async = inspect.iscoroutinefunction(function) or (
        not inspect.isroutine(function) and inspect.iscoroutinefunction(type(function).__call__)
    )
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        # Some functions written in C have no signature.
        return _Offer(
            name,
            function,
            is_async,
            None,
            offered.timeout,
            offered.repeatable,
            CapabilitySpec(name, doc=_doc(function)),
        )
    context = next((p.name for p in signature.parameters.values() if _wants_context(p)), None)
    if context is not None:
        parameters = [p for p in signature.parameters.values() if p.name != context]
        signature = signature.replace(parameters=parameters)
    spec = CapabilitySpec(name, str(signature), _doc(function))
    return _Offer(name, function, is_async, context, offered.timeout, offered.repeatable, spec)


def check_capabilities(capabilities: Mapping[str, Capability | Callable[..., Any]]) -> None:
    """Check that capabilities can be offered.

    Raises:
        CapabilityError: a name or a function cannot be used; the message names it.
    """
    for name, given in capabilities.items():
        _offer(name, given)


def _wants_context(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        # `from __future__ import annotations`: the name it goes by, without evaluating anything.
        return annotation.rpartition(".")[2] == CallContext.__name__
    return annotation is CallContext


def _doc(function: Callable[..., Any]) -> str:
    return inspect.getdoc(function) or ""


class HostCalls:
    """Serves the calls of one session's code, all at once."""

    def __init__(
        self,
        capabilities: Mapping[str, Capability | Callable[..., Any]],
        task_owner: TaskOwner,
        tasks: AnsweringTasks,
    ) -> None:
        """Offer `capabilities`; answer in `tasks`, run plain functions in threads of `task_owner`.

        Raises:
            CapabilityError: a name or a function cannot be used; the message names it.
        """
        self._offers = {name: _offer(name, given) for name, given in capabilities.items()}
        self._task_owner = task_owner
        self._tasks = tasks

    @property
    def specs(self) -> list[CapabilitySpec]:
        """What the worker is told of each host function."""
        return [offer.spec for offer in self._offers.values()]

    def serve(self, call: Call) -> None:
        """Call the host function, which is one of those that are offered; answer now or later."""
        offer = self._offers[call.capability]
        self._tasks.start(
            call, self._answer, _failure, f"capability {offer.name!r}", repeatable=offer.repeatable
        )

    async def _answer(self, call: Call, attempt: int) -> CallResponse:
        offer = self._offers[call.capability]
        args: list[Any] = decode_value(call.args)
        kwargs: dict[str, Any] = decode_value(call.kwargs)
        if offer.context_parameter is not None:
            kwargs[offer.context_parameter] = CallContext(call.execution_id, call.call_id, attempt)
        if offer.timeout is None:
            value = await self._invoke(offer, args, kwargs)
        else:
            limit = asyncio.timeout(offer.timeout)
            try:
                async with limit:
                    value = await self._invoke(offer, args, kwargs)
            except TimeoutError as error:
                if not limit.expired():
                    raise  # the function's own
                raise TimeoutError(
                    f"capability {offer.name!r} did not answer in time "
                    f"(capability={offer.name}, execution_id={call.execution_id}, "
                    f"request_id={call.call_id}, timeout={offer.timeout:g})"
                ) from error
        return CallResponse(call_id=call.call_id, value=encode_value(value))

    async def _invoke(self, offer: _Offer, args: list[Any], kwargs: dict[str, Any]) -> Any:
        name = f"capability {offer.name!r}"
        if offer.is_async:
            return await self._task_owner.run_apart(name, until_served(offer.call(*args, **kwargs)))
        value = await self._task_owner.run_in_thread(name, lambda: offer.call(*args, **kwargs))
        if inspect.isawaitable(value):
            # A plain function that returns a coroutine, such as a lambda around one.
            awaitable: Awaitable[Any] = value
            return await self._task_owner.run_apart(name, until_served(awaitable))
        return value


def _failure(call: Call, error: BaseException) -> CallResponse:
    if isinstance(error, LocalProtocolError | RemoteProtocolError | ProtocolError):
        # A host function's own call of encode_value can fail like this too, and is told the same.
        raised = CallError("CapabilityError", encodable(f"capability {call.capability!r}: {error}"))
    else:
        raised = CallError(type(error).__name__, encodable(text_of(error)))
    return CallResponse(call_id=call.call_id, error=raised)
