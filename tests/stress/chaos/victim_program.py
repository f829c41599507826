"""The program that a fault run disturbs: it drives one durable session through all of its cells.

    python -m tests.stress.chaos.victim_program ORDERS

It may be killed at any moment, and is then started again. Its side effects, and what it was told of its
executions, it writes to a log that no part of the product knows of: one line each, in one write.

What it says on stdout is for the runner: `worker PID`, `begin N PID`, `sending N PID`, `cut` (a worker's
stream ended inside a frame), `back` (from a worker's death), `done N`, `refused TEXT`, `finished`. After
`sending` it stops itself until it is continued; after `refused` it waits for a line on stdin, which says
that there is room on the disk again. By the signals in `SIGNALS` it is told to close its session, or to
write into its store that another owner has the session; all that it awaits then has to end.
"""

import asyncio
import ctypes
import itertools
import logging
import os
import random
import signal
import sqlite3
import sys
from contextlib import closing, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

import pyrepl3_client as pyrepl3
from pyrepl3_client.errors import LeaseLost
from pyrepl3_schemas.errors import RemoteProtocolError
from tests.stress.chaos.plan import BRACE, NAMESPACE, Fault, Kind, code_of, kinds_of

TOKEN: Final = "PYREPL3_FAULT_RUN"
"""Stands in the environment of everything that a fault run starts."""
HOLD: Final = 0.01
"""Seconds that every third host call takes, so that deaths fall into calls too."""
SAMPLE: Final = 20
"""So many executions that have ended are asked for again by a program that is started again."""
ADVICE: Final = "free space"
"""Stands in what is said of a full disk."""
SIGNALS: Final = {Fault.CLOSE_SESSION: signal.SIGUSR1, Fault.LOSE_LEASE: signal.SIGUSR2}
"""What tells a program how its session is to end."""
BOUND: Final = 60.0
"""Seconds within which whatever it awaits ends, whatever is done to it."""
_PR_SET_PDEATHSIG: Final = 1


class Orders(msgspec.Struct, frozen=True):
    """What a program is to do."""

    store: str | None
    session_id: str
    seed: int
    cells: int
    log: str
    life: int
    """Counts the programs of one session."""
    stand_still: bool = True
    """Return whether to stop before a long frame is read."""
    again: bool = False
    """Return whether all of it has been done, and is only to be asked for again."""


class Log:
    """The independent log. See `checks` for what it proves."""

    def __init__(self, path: Path, life: int) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._life = life

    def write(self, *words: object) -> None:
        os.write(self.fd, (" ".join(map(str, (self._life, *words))) + "\n").encode())


class Reopen(Exception):  # noqa: N818 - what to do, no failure
    """The session is dead: open it again."""


class Program:
    """One life of the program."""

    def __init__(self, orders: Orders, lines: asyncio.StreamReader) -> None:
        self.orders = orders
        self.lines = lines
        self.log = Log(Path(orders.log), orders.life)
        self.kinds = kinds_of(orders.seed, orders.cells)
        self.at = 0
        self.watched = 0
        """The incarnation whose end is watched."""
        self._session: pyrepl3.Session | None = None
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def session(self) -> pyrepl3.Session:
        assert self._session is not None
        return self._session

    def say(self, *words: object) -> None:
        print(*words, flush=True)

    # --- what the session's code asks of the outside -------------------------------------------------

    async def pay(self, n: int, context: pyrepl3.CallContext) -> int:
        self.log.write("call", context.call_id, context.attempt)
        if n % 3 == 0:
            await asyncio.sleep(HOLD)
        return 10 * n

    def charge(self, n: int, context: pyrepl3.CallContext) -> None:
        """Runs in a thread, and may not be called twice, whatever happens."""
        self.log.write("call", context.call_id, context.attempt)

    async def confirm(self, n: int, receipt: int, context: pyrepl3.CallContext) -> int:
        self.log.write("call", context.call_id, context.attempt)
        return receipt + n

    async def deliver(self, n: int, data: bytes, context: pyrepl3.CallContext) -> int:
        self.log.write("call", context.call_id, context.attempt)
        return len(data)

    def answer(self, opening: int, prompt: str) -> str:
        """Runs in a thread, which may still write when its session has been closed and opened again."""
        assert isinstance(prompt, pyrepl3.Prompt)
        self.log.write("ask", prompt.input_id, opening)
        return prompt.strip("? ")

    # --- the session ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Drive the session to its end, in as many openings as it takes."""
        for opening in itertools.count():
            try:
                async with pyrepl3.open_session(
                    self.orders.session_id,
                    store=self.orders.store,
                    capabilities={
                        "pay": pyrepl3.capability(self.pay, repeatable=True, awaitable=False),
                        "charge": self.charge,
                        "confirm": pyrepl3.capability(self.confirm, repeatable=True, awaitable=False),
                        "deliver": pyrepl3.capability(self.deliver, repeatable=True, awaitable=False),
                    },
                    on_input=partial(self.answer, opening),
                    on_output=self.on_output,
                    on_recovery=self.on_recovery,
                    max_attempts=50,
                    config=pyrepl3.WorkerConfig(
                        # A worker gets none of our variables unless it is told.
                        env={TOKEN: os.environ[TOKEN]},
                        cancel_grace=0.5,
                        kill_grace=0.5,
                        close_grace=1.0,
                    ),
                ) as self._session:
                    self.say("worker", self.session.worker.pid)
                    self.watch()
                    await (self.all_again() if self.orders.again else self.all_cells())
                    break
            except (Reopen, pyrepl3.SessionClosed):
                self.watched = 0
            except pyrepl3.StoreError as error:
                self.watched = 0
                await self.until_room(error)
        self.say("finished")

    async def all_cells(self) -> None:
        known = known_outcomes(Path(self.orders.log))
        first = next((n for n in range(self.orders.cells) if f"cell-{n}" not in known), self.orders.cells)
        for n in sorted(random.Random(self.orders.life).sample(range(first), min(first, SAMPLE))):
            await self.cell(n)
        for n in range(first, self.orders.cells):
            await self.cell(n)
        namespace = await self.execute(NAMESPACE, "namespace")
        save(f"{self.orders.log}.namespace", namespace.value)

    async def all_again(self) -> None:
        """Ask for everything that has ended once more: it is to be had, and is never another outcome."""
        for n in range(self.orders.cells):
            assert (await self.execute(code_of(self.kinds[n], n), f"cell-{n}")).replayed, n
        assert (await self.execute(NAMESPACE, "namespace")).replayed

    async def cell(self, n: int) -> None:
        self.at = n
        self.watch()
        self.say("begin", n, self.session.worker.pid)
        outcome = await self.execute(code_of(self.kinds[n], n), f"cell-{n}")
        assert (outcome.error is not None) == (self.kinds[n] is Kind.FAILING), (n, outcome.error)
        self.say("done", n)

    async def execute(self, code: str, execution_id: str) -> pyrepl3.ExecutionResult:
        """Have an execution's outcome, however often the disk is full meanwhile."""
        while True:
            try:
                async with asyncio.timeout(BOUND):
                    outcome = await self.session.execute(code, execution_id=execution_id, check=False)
            except TimeoutError:
                raise AssertionError(f"{execution_id} never ended: {self.session}") from None
            except (pyrepl3.SessionClosed, LeaseLost) as error:
                self.log.write("refused", execution_id)
                self.log.write("reopened", execution_id)
                raise Reopen from error
            except pyrepl3.StoreError as error:
                self.log.write("refused", execution_id)
                await self.until_room(error)
                if self.session.state is pyrepl3.SessionState.DEAD:
                    self.log.write("reopened", execution_id)
                    raise Reopen from error
            else:
                self.log.write("outcome", execution_id, outcome.replayed, digest_of(outcome))
                return outcome

    async def until_room(self, error: pyrepl3.StoreError) -> None:
        assert ADVICE in str(error), error
        self.say("refused", error)
        if not await self.lines.readline():
            raise EOFError("the runner is gone")

    # --- the session's end ---------------------------------------------------------------------------

    def listen(self) -> None:
        """End the session when the runner says so."""
        loop = asyncio.get_running_loop()
        for fault, number in SIGNALS.items():
            loop.add_signal_handler(number, self._on_signal, fault)

    def _on_signal(self, fault: Fault) -> None:
        if self._session is None or self._session.state is not pyrepl3.SessionState.READY:
            return
        ending = asyncio.create_task(self._end_session(self._session, fault))
        self._endings.add(ending)
        ending.add_done_callback(self._ended)

    def _ended(self, ending: asyncio.Task[None]) -> None:
        self._endings.discard(ending)
        if not ending.cancelled() and ending.exception() is not None:
            raise SystemExit(f"what the program awaited did not end well: {ending.exception()!r}")

    async def _end_session(self, session: pyrepl3.Session, fault: Fault) -> None:
        """End a session, and wait for all that a caller can wait for."""
        waits: list[asyncio.Task[Any]] = [
            asyncio.create_task(call)
            for call in (session.ping(), session.stats(), session.variables(), session.checkpoint("end"))
        ]
        await asyncio.sleep(0)
        if fault is Fault.CLOSE_SESSION:
            waits.append(asyncio.create_task(session.close()))
        else:
            assert self.orders.store is not None
            with (
                suppress(sqlite3.OperationalError),
                closing(sqlite3.connect(self.orders.store)) as store,
                store,
            ):
                store.execute(
                    "UPDATE sessions SET owner = 'elsewhere/1/1/b/n/r', token = token + 1, expires_at = 0 "
                    "WHERE id = ?",
                    (session.session_id,),
                )
        async with asyncio.timeout(BOUND):
            for ended in await asyncio.gather(*waits, return_exceptions=True):
                if isinstance(ended, BaseException) and not isinstance(ended, pyrepl3.PyRepl3Error):
                    raise ended

    # --- deaths --------------------------------------------------------------------------------------

    def on_output(self, output: pyrepl3.Output) -> None:
        if self.orders.stand_still and BRACE in output.data:
            self.say("sending", self.at, self.session.worker.pid)
            os.kill(os.getpid(), signal.SIGSTOP)

    def on_recovery(self, report: pyrepl3.Recovery) -> None:
        if report.cause is not None:
            self.say("back")
        self.watch()

    def watch(self) -> None:
        """Have it said when the worker's stream ends in the middle of a frame: only a private room knows."""
        if self._session is None:
            return  # it is coming back while it is being opened
        worker = self._session._supervisor.worker  # pyright: ignore[reportPrivateUsage]
        if worker is None or worker.number == self.watched:
            return
        self.watched = worker.number

        def on_end(ended: asyncio.Future[Any]) -> None:
            if isinstance(ended.result().cause, RemoteProtocolError):
                self.say("cut")

        worker.connection.exited.add_done_callback(on_end)


def digest_of(outcome: pyrepl3.ExecutionResult) -> str:
    """Digest everything of an outcome that its owner sees, but for how often it was tried."""
    error = None if outcome.error is None else (outcome.error.type, outcome.error.message)
    told = (outcome.value, outcome.repr, outcome.stdout, outcome.stderr, outcome.truncated, error)
    return sha256(repr(told).encode()).hexdigest()


def save(path: str, namespace: Any) -> None:
    """Write down what the namespace is in the end."""
    Path(path).write_bytes(msgspec.json.encode(namespace))


def known_outcomes(path: Path) -> set[str]:
    """Return the ids of the executions whose outcome a program of this session has seen."""
    words = (line.split() for line in path.read_text().splitlines())
    return {word[2] for word in words if word[1] == "outcome"}


async def main(orders: Orders) -> None:
    """Run it, with the runner's lines at hand."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    try:
        program = Program(orders, lines)
        program.listen()
        await program.run()
    finally:
        transport.close()


if __name__ == "__main__":
    # A runner that was killed leaves no program behind, not even a stopped one.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    logging.basicConfig(format="%(asctime)s %(message)s")
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Orders)))
