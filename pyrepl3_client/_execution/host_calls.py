"""The host functions that the session's code may call: offered and withdrawn, called and answered."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pyrepl3_client._concurrency.task_owner import TaskOwner
from pyrepl3_client._execution.answering import AnsweringTasks
from pyrepl3_client._execution.call_errors import NotApprovedError, RefusedError, call_error
from pyrepl3_client._execution.offers import (
    CallProgress,
    CallRequest,
    Capability,
    Offered,
    describe_offer,
    inspect_capability,
    make_context,
)
from pyrepl3_client._execution.serving import until_served
from pyrepl3_client._telemetry.announcer import CallWatch, Telemetry
from pyrepl3_client.config import ErrorDetail, WorkerConfig
from pyrepl3_client.errors import CapabilityError
from pyrepl3_schemas.codec import decode_value, encode_value
from pyrepl3_schemas.executor_config import shown
from pyrepl3_schemas.messages import Call, CallResponse, CapabilitySpec

type Capabilities = Mapping[str, Capability | Callable[..., Any]]


class HostCalls:
    """Serves the calls of one session's code, all at once."""

    def __init__(
        self,
        config: WorkerConfig,
        capabilities: Mapping[str, Any],
        task_owner: TaskOwner,
        tasks: AnsweringTasks,
        telemetry: Telemetry,
    ) -> None:
        """Offer `capabilities`; answer in `tasks`, run plain functions in threads of `task_owner`.

        Each call is announced to `telemetry`, once, when it has ended. Of host functions' exceptions the code
        sees what `config.host_errors` says, unless a capability says otherwise.

        Raises:
            CapabilityError: a name or a function cannot be used; the message names it.
        """
        self._offers = {name: inspect_capability(name, given) for name, given in capabilities.items()}
        self._withdrawn: set[str] = set()
        self._own: dict[str, Offered] = {}
        self._errors: ErrorDetail = config.host_errors
        self._task_owner = task_owner
        self._tasks = tasks
        self._telemetry = telemetry

    @property
    def specs(self) -> list[CapabilitySpec]:
        """What the worker is told of each host function."""
        return [offer.spec for offer in self._offers.values()]

    def was_offered(self, name: str) -> bool:
        """Return whether the code may know a host function of a name: it is offered, or was."""
        return name in self._offers or name in self._withdrawn or name in self._own

    @property
    def names(self) -> list[str]:
        """The names of what is offered now, sorted."""
        return sorted(self._offers)

    def offer(self, capabilities: Mapping[str, Any]) -> list[CapabilitySpec]:
        """Offer more host functions, or others under the same names; return what to tell the worker.

        Raises:
            CapabilityError: a name or a function cannot be used; nothing is offered then.
        """
        offers = {name: inspect_capability(name, given) for name, given in capabilities.items()}
        self._offers.update(offers)
        self._withdrawn.difference_update(offers)
        return [offer.spec for offer in offers.values()]

    def serve_own(self, name: str, function: Callable[..., Any]) -> None:
        """Have a function of the session's own called by the name that its workers know it by."""
        options = Capability(function, repeatable=True)
        self._own[name] = describe_offer(name, options)

    def withdraw(self, name: str) -> None:
        """Offer a host function no more. Calls of it that are under way go on.

        Raises:
            CapabilityError: none of that name is offered.
        """
        if name not in self.names:  # which compares, and hashes nothing
            known = ", ".join(self.names) or "none"
            raise CapabilityError(
                f"no host function {shown(name)} is offered in this session; offered: {known}"
            )
        del self._offers[name]
        self._withdrawn.add(name)

    # --- calls ---------------------------------------------------------------------------------------

    def serve(self, call: Call) -> None:
        """Call the host function, which is or was offered; answer now or later."""
        offer = self._offers.get(call.capability) or self._own.get(call.capability)
        progress = CallProgress()
        watch = CallWatch(
            self._telemetry,
            call.execution_id,
            call.call_id,
            call.capability,
            announced=call.capability not in self._own,
        )

        async def answer(call: Call, attempt: int) -> CallResponse:
            if offer is None:
                raise RefusedError(f"{call.capability}() is not offered any more: the host has withdrawn it")
            with watch.calling(attempt):
                response = await self._answer(offer, call, attempt, progress)
            watch.ended("ok")
            return response

        async def permit(call: Call) -> None:
            if offer is not None:
                await self._permit(offer, call)

        def failure(call: Call, error: BaseException) -> CallResponse:
            detail = "shown" if offer is None else offer.options.errors or self._errors
            return CallResponse(call_id=call.call_id, error=call_error(call, error, detail, watch))

        def abandoned() -> None:
            progress.abandoned = True
            watch.ended("abandoned")

        self._tasks.start(
            call,
            answer,
            failure,
            f"capability {call.capability!r}",
            repeatable=offer is not None and offer.options.repeatable,
            pauses=offer is not None and offer.options.pauses_timeout,
            permit=permit if offer is not None and _has_budget(offer.options) else None,
            on_abandoned=abandoned,
        )

    async def _permit(self, offer: Offered, call: Call) -> None:
        """Wait until a new call may be made.

        Raises:
            RefusedError: it is over the budget.
            NotApprovedError: it was not approved.
        """
        options = offer.options
        if options.max_calls is not None:
            if offer.calls >= options.max_calls:
                raise RefusedError(
                    f"{offer.name}() has been called {offer.calls} times, and may not be called again in "
                    f"this session: its budget is max_calls={options.max_calls}"
                )
            offer.calls += 1
        if options.approve is None:
            return
        approved = False
        try:
            approved = await self._ask_for_approval(offer, options.approve, call)
        finally:
            if not approved and options.max_calls is not None:
                offer.calls -= 1
        if not approved:
            raise NotApprovedError(f"{offer.name}() was not approved (call {call.call_id!r})")

    async def _ask_for_approval(
        self, offer: Offered, approve: Callable[[CallRequest], Any], call: Call
    ) -> bool:
        request = CallRequest(
            offer.name,
            tuple(decode_value(call.args)),
            decode_value(call.kwargs),
            call.execution_id,
            call.call_id,
        )
        name = f"the approval of capability {offer.name!r}"
        if inspect.iscoroutinefunction(approve):
            return bool(await self._task_owner.run_apart(name, approve(request)))
        answer = await self._task_owner.run_in_thread(name, lambda: approve(request))
        if inspect.isawaitable(answer):
            answer = await self._task_owner.run_apart(name, answer)
        return bool(answer)

    async def _answer(self, offer: Offered, call: Call, attempt: int, progress: CallProgress) -> CallResponse:
        context = make_context(call.execution_id, call.call_id, attempt, progress)
        args, kwargs = offer.arguments(decode_value(call.args), decode_value(call.kwargs), context)
        seconds = offer.options.timeout
        if seconds is None:
            value = await self._invoke(offer, args, kwargs)
        else:
            limit = asyncio.timeout(seconds)
            try:
                async with limit:
                    value = await self._invoke(offer, args, kwargs)
            except TimeoutError:
                if not limit.expired():
                    raise  # the function's own
                raise TimeoutError(
                    f"capability {offer.name!r} did not answer in time "
                    f"(capability={offer.name}, execution_id={call.execution_id}, "
                    f"request_id={call.call_id}, timeout={seconds:g})"
                ) from None
        return CallResponse(call_id=call.call_id, value=encode_value(value))

    async def _invoke(self, offer: Offered, args: Any, kwargs: dict[str, Any]) -> Any:
        name = f"capability {offer.name!r}"
        if offer.is_async:
            return await self._task_owner.run_apart(name, until_served(offer.takes(*args, **kwargs)))
        value = await self._task_owner.run_in_thread(name, lambda: offer.takes(*args, **kwargs))
        if inspect.isawaitable(value):
            # A plain function that returns a coroutine, such as a lambda around one.
            awaitable: Awaitable[Any] = value
            return await self._task_owner.run_apart(name, until_served(awaitable))
        return value


def _has_budget(options: Capability) -> bool:
    return options.max_calls is not None or options.approve is not None
