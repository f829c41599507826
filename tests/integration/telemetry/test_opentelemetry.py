"""Spans and metrics, as OpenTelemetry's own SDK collects them."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pyrepl3_client as pyrepl3
from pyrepl3_client import sync
from pyrepl3_client._telemetry import spans as telemetry_spans
from tests.helpers.real_sessions import quick

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry's SDK is not installed (group `libraries`)")

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

# pyright: reportPrivateUsage=false

pytestmark = pytest.mark.anyio

EXPORTER = InMemorySpanExporter()
READER = InMemoryMetricReader()


@pytest.fixture(scope="module", autouse=True)
def providers() -> None:
    """The program's, which can be set once for each process; they hold no thread, and stay."""
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(EXPORTER))
    metering = MeterProvider([READER], shutdown_on_exit=False)
    trace.set_tracer_provider(tracing)
    metrics.set_meter_provider(metering)


@pytest.fixture
def tracer() -> trace.Tracer:
    EXPORTER.clear()
    return trace.get_tracer("program")


def spans(name: str) -> list[ReadableSpan]:
    return [span for span in EXPORTER.get_finished_spans() if span.name == name]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def is_below(span: ReadableSpan, parent: ReadableSpan | trace.Span) -> bool:
    context = parent.get_span_context()
    assert context is not None
    return span.parent is not None and span.parent.span_id == context.span_id


def measured(name: str) -> list[tuple[dict[str, Any], Any]]:
    """Return the points of a metric: attributes, and the count or the value."""
    data = READER.get_metrics_data()
    found: list[tuple[dict[str, Any], Any]] = []
    if data is None:
        return found
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == name:
                    for point in metric.data.data_points:
                        count = getattr(point, "count", None)
                        number = getattr(point, "value", None) if count is None else count
                        found.append((dict(point.attributes or {}), number))
    return found


def total(name: str, **wanted: Any) -> int:
    keys = {f"pyrepl3.{key.replace('__', '.')}": value for key, value in wanted.items()}
    return sum(number for attributes, number in measured(name) if keys.items() <= attributes.items())


async def test_an_execution_is_a_span_below_the_callers_and_its_calls_below_it(tracer: trace.Tracer) -> None:
    def plain(key: str) -> str:
        with tracer.start_as_current_span("inside a thread"):
            return key

    async def asynchronous(key: str) -> str:
        with tracer.start_as_current_span("on the loop"):
            return key

    offered = {"plain": plain, "asynchronous": asynchronous}
    async with pyrepl3.open_session("s", config=quick(), capabilities=offered) as session:
        with tracer.start_as_current_span("program") as mine:
            await session.execute(
                "plain('secret') + await asynchronous('secret')", execution_id="e", filename="/tmp/a.py"
            )
    (execute,) = spans("execute")
    assert is_below(execute, mine)
    assert attributes(execute) | {"pyrepl3.execution.queue_wait": 0.0} == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "python",
        "gen_ai.tool.call.id": "e",
        "code.file.path": "/tmp/a.py",
        "pyrepl3.session.id": "s",
        "pyrepl3.execution.id": "e",
        "pyrepl3.execution.is_replay": False,
        "pyrepl3.execution.queue_wait": 0.0,
        "pyrepl3.execution.outcome": "ok",
        "pyrepl3.execution.replayed": False,
        "pyrepl3.execution.attempts": 1,
        "pyrepl3.execution.mode": "top_level_await",
    }
    (one,), (two,) = spans("execute_tool plain"), spans("execute_tool asynchronous")
    assert is_below(one, execute)
    assert is_below(two, execute)
    assert attributes(one)["gen_ai.tool.call.id"] == "e:plain:1"
    assert attributes(one)["gen_ai.tool.type"] == "function"
    assert is_below(spans("inside a thread")[0], one)
    assert is_below(spans("on the loop")[0], two)
    assert "secret" not in str([attributes(span) for span in EXPORTER.get_finished_spans()])


CASES = [
    ("1 / 0", "exception", "ZeroDivisionError"),
    ("this is no code", "compilation", "compilation"),
    ("while True: pass", "timeout", "timeout"),
    ("import os; os._exit(3)", "died", "WorkerDied"),
]


async def test_how_an_execution_ends_is_its_spans_status_and_counted(tracer: trace.Tracer) -> None:
    before = {kind: total("pyrepl3.executions", execution__outcome=kind) for _, kind, _ in CASES}
    async with pyrepl3.open_session(config=quick()) as session:
        for code, _, _ in CASES:
            await session.execute(code, timeout=0.5, check=False)
    ended = spans("execute")
    assert len(ended) == len(CASES)
    for span, (_, kind, error_type) in zip(ended, CASES, strict=True):
        assert span.status.status_code is trace.StatusCode.ERROR
        assert attributes(span)["pyrepl3.execution.outcome"] == kind
        assert attributes(span)["error.type"] == error_type
        assert total("pyrepl3.executions", execution__outcome=kind) == before[kind] + 1


async def test_a_failing_call_is_an_error_of_its_span_alone(tracer: trace.Tracer) -> None:
    def fails() -> None:
        raise LookupError("secret")

    async with pyrepl3.open_session(config=quick(), capabilities={"fails": fails}) as session:
        await session.execute("try: fails()\nexcept LookupError: pass")
    (call,) = spans("execute_tool fails")
    assert attributes(call)["error.type"] == "LookupError"
    assert attributes(call)["pyrepl3.host_call.outcome"] == "error"
    (execute,) = spans("execute")
    assert execute.status.status_code is trace.StatusCode.UNSET


async def test_recoveries_and_replays_are_marked(tracer: trace.Tracer, tmp_path: Path) -> None:
    first_time = tmp_path / "first"
    deaths = total("pyrepl3.worker.deaths")
    recoveries = total("pyrepl3.recoveries", recovery__state="done")
    spawns = total("pyrepl3.worker.spawns")
    with tracer.start_as_current_span("program") as mine:
        async with pyrepl3.open_session("s", store=tmp_path / "state.db", config=quick()) as session:
            await session.execute("x = 1", execution_id="before")
            code = (
                "import os, subprocess\n"
                f"if not os.path.exists({str(first_time)!r}):\n"
                f"    open({str(first_time)!r}, 'w').close()\n"
                "    subprocess.run(['sh', '-c', 'kill -9 $PPID'])\n"
                "x + 1"
            )
            assert (await session.execute(code, execution_id="dies")).value == 2
            assert (await session.execute("x = 1", execution_id="before")).replayed
    (recover,) = spans("recover")
    live = {
        attributes(span)["pyrepl3.execution.id"]: span for span in spans("execute") if is_below(span, mine)
    }
    assert is_below(recover, live["dies"])
    assert attributes(recover)["pyrepl3.recovery.state"] == "done"
    assert attributes(live["dies"])["pyrepl3.execution.attempts"] == 2
    assert [event.name for event in live["dies"].events] == ["pyrepl3.interrupted"]
    assert attributes(live["before"])["pyrepl3.execution.replayed"]  # the newer span of that id
    for replay in [span for span in spans("execute") if attributes(span)["pyrepl3.execution.is_replay"]]:
        assert is_below(replay, recover)
    assert total("pyrepl3.worker.deaths") == deaths + 1
    assert total("pyrepl3.recoveries", recovery__state="done") == recoveries + 1
    assert total("pyrepl3.worker.spawns") == spawns + 2
    for histogram in (
        "execution.duration",
        "execution.queue_wait",
        "recovery.duration",
        "checkpoint.duration",
    ):
        assert total(f"pyrepl3.{histogram}") > 0, histogram


async def test_no_span_is_left_open_when_a_session_is_closed(tracer: trace.Tracer) -> None:
    async with pyrepl3.open_session(config=quick()) as session:
        executions = [session.start("import asyncio; await asyncio.sleep(60)") for _ in range(3)]
    for execution in executions:
        with contextlib.suppress(pyrepl3.SessionClosed, pyrepl3.ExecutionFailed):
            await execution
    assert len(spans("execute")) == 3
    assert {span.status.status_code for span in spans("execute")} == {trace.StatusCode.ERROR}


class Broken(SpanProcessor):
    """Raises at each span, while it is told to."""

    raises = False

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if self.raises:
            raise RuntimeError("no room for this")

    def on_end(self, span: ReadableSpan) -> None:
        if self.raises:
            raise RuntimeError("no room for this")


@pytest.mark.parametrize("begins_well", [False, True])
async def test_a_processor_that_raises_reaches_no_session(
    tracer: trace.Tracer, begins_well: bool, caplog: pytest.LogCaptureFixture
) -> None:
    provider, broken = trace.get_tracer_provider(), Broken()
    assert isinstance(provider, TracerProvider)
    provider.add_span_processor(broken)
    telemetry_spans._told.clear()

    def call() -> int:
        broken.raises = True
        return 42

    try:
        broken.raises = not begins_well
        async with pyrepl3.open_session("s", config=quick(), capabilities={"call": call}) as session:
            assert (await session.execute("call()")).value == 42
            os.kill(session.worker.pid, 9)
            assert (await session.execute("6 * 7")).value == 42
    finally:
        broken.raises = False
    told = [record for record in caplog.records if record.name == "pyrepl3.handlers"]
    assert told
    assert all("OpenTelemetry's" in record.getMessage() for record in told)
    assert len(told) <= 2  # a span's start and its end


def test_the_span_of_a_synchronous_call_is_below_the_callers(tracer: trace.Tracer) -> None:
    with sync.open_session(config=quick()) as session, tracer.start_as_current_span("program") as mine:
        session.execute("1")
        session.start("2").result()
    assert [is_below(span, mine) for span in spans("execute")] == [True, True]


UNUSED = """
import sys
import pyrepl3_client.sync as pyrepl3
with pyrepl3.open_session(capabilities={"f": lambda: 1}) as session:
    assert session.execute("f()").value == 1
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
ABSENT = "import sys; sys.modules['opentelemetry'] = None\n"
WITHOUT_SDK = "import opentelemetry.trace\n"


@pytest.mark.parametrize(("first", "is_there"), [("", False), (ABSENT, True), (WITHOUT_SDK, True)])
def test_nothing_is_imported_where_it_is_absent_or_unused(first: str, is_there: bool) -> None:
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    program = [sys.executable, "-c", first + UNUSED]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.stdout != "[]\n") is is_there
