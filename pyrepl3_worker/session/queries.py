"""Requests that are answered at once, whatever runs: complete, inspect, ping and stats."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyrepl3_schemas.messages import (
    Complete,
    Completions,
    GetStats,
    Inspect,
    Inspection,
    Metrics,
    Ping,
    Pong,
    Stats,
)
from pyrepl3_worker.executor import AsyncExecutor
from pyrepl3_worker.interrupts.timers import TimerThread
from pyrepl3_worker.isolation.builtins_guard import PristineBuiltins
from pyrepl3_worker.namespace import NamespaceManager
from pyrepl3_worker.output.collector import OutputCollector
from pyrepl3_worker.session.process_limits import cpu_seconds, resident_bytes
from pyrepl3_worker.wire.transport import FrameSender

if TYPE_CHECKING:  # loaded by the first that asks for completions
    from pyrepl3_worker.session.editor_calls import EditorCalls


class Queries:
    """Answers from the namespace and the executor as they are, without running the user's other code."""

    def __init__(
        self,
        namespace: NamespaceManager,
        executor: AsyncExecutor,
        output: OutputCollector,
        writer: FrameSender,
        count_queued: Callable[[], int],
        timers: TimerThread,
    ) -> None:
        """`count_queued` returns how many executions have not reached the executor yet."""
        self._timers = timers
        self._calls: EditorCalls | None = None
        self._namespace = namespace
        self._executor = executor
        self._output = output
        self._writer = writer
        self._count_queued = count_queued

    def complete(self, message: Complete) -> None:
        """Send the completions at the cursor."""
        with PristineBuiltins():
            try:
                # Imported by the first request, here and below, to keep the worker's start fast.
                from pyrepl3_worker.inspection.completion import complete

                if self._calls is None:
                    from pyrepl3_worker.session.editor_calls import EditorCalls

                    self._calls = EditorCalls(self._executor, self._timers)
                translator = self._executor.compiler.translator
                magics = None if translator is None else translator.magic_names()
                answer = complete(self._namespace.namespace, message, self._calls.call, magics)
            except Exception:  # the code has broken a library (`os.stat`, replaced for a test)
                answer = Completions(request_id=message.request_id)
        self._writer.send(answer)

    def inspect(self, message: Inspect) -> None:
        """Send what is known of a name, or of all names."""
        with PristineBuiltins():
            try:
                from pyrepl3_worker.inspection.completion import inspect

                answer = inspect(self._namespace.namespace, message, self._namespace.hidden_names)
            except Exception:  # as above
                answer = Inspection(request_id=message.request_id)
        self._writer.send(answer)

    def is_complete(self, body: Any) -> object:
        """Return whether code is complete: the answer to a request."""
        from pyrepl3_worker.inspection.completeness import check_completeness

        translator = self._executor.compiler.translator
        if translator is not None:
            status, indent = translator.completeness(body["code"])
            return {"status": status, "indent": indent}
        return check_completeness(body["code"])

    def ping(self, message: Ping) -> None:
        """Send a `pong`: memory, CPU time, queue and the running execution."""
        running = self._executor.running
        self._writer.send(
            Pong(
                nonce=message.nonce,
                rss=resident_bytes(),
                cpu_time=cpu_seconds(),
                queue=self._executor.queued + self._count_queued(),
                current_execution=None if running is None else running.execution_id,
            )
        )

    def stats(self, message: GetStats) -> None:
        """Send the session's metrics."""
        metrics, cache, manager = (
            self._executor.metrics,
            self._executor.compiler.cache,
            self._executor.coroutine_manager,
        )
        asked = cache.hits + cache.misses
        self._writer.send(
            Stats(
                request_id=message.request_id,
                metrics=Metrics(
                    total_executions=metrics.total,
                    successful_executions=metrics.succeeded,
                    failed_executions=metrics.failed,
                    total_duration=metrics.total_duration,
                    duration_buckets=metrics.duration_buckets,
                    mode_distribution=metrics.mode_distribution,
                    cache_hits=cache.hits,
                    cache_misses=cache.misses,
                    cache_hit_rate=cache.hits / asked if asked else 0.0,
                    ast_transforms=self._executor.compiler.ast_transforms,
                    active_tasks=len(manager.tasks),
                    tasks_created=manager.created,
                    output_bytes=self._output.total_bytes,
                ),
            )
        )
