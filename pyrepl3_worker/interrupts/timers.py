"""TimerThread: runs actions at their time, also while code holds the loop's thread."""

import threading
from _thread import start_new_thread
from collections.abc import Callable
from contextlib import suppress
from heapq import heapify, heappop, heappush  # by name: the code may replace the module's own
from itertools import count
from time import monotonic
from typing import Final

_COMPACT_ABOVE: Final = 64


class Timer:
    """An action that is due at a time, unless it is cancelled before."""

    __slots__ = ("action", "timers")

    def __init__(self, action: Callable[[], None], timers: "TimerThread") -> None:
        """Made by `TimerThread.call_later` alone."""
        self.action: Callable[[], None] | None = action
        self.timers = timers

    def cancel(self) -> None:
        """Keep the action from starting. It may be running already."""
        if self.action is not None:
            self.action = None
            self.timers.count_cancelled()


class TimerThread:
    """Runs actions at their time, on a daemon thread of its own. Actions must be short and not raise."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self.lock = threading.RLock()
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = count()
        self._cancelled = 0
        self._wake_lock = threading.Lock()
        self._wake_lock.acquire()
        self._next_due = float("inf")
        self._running = False
        self._generation = 0

    def call_later(self, delay: float, action: Callable[[], None]) -> Timer:
        """Run `action` in `delay` seconds, on the timer thread."""
        when = monotonic() + delay
        timer = Timer(action, self)
        with self.lock:
            heappush(self._heap, (when, next(self._sequence), timer))
            if not self._running:
                self.start()
            elif when < self._next_due:
                self._next_due = when
                self._wake_thread()
        return timer

    def start(self) -> None:
        """Start the thread. The first timer does so too, but by then memory may be too short for a thread.

        Without a thread, timers wait until one can be started: output is sent at the end of its cell.
        """
        with self.lock:
            if self._running:
                return
            # No threading.Thread: the code's own hooks for those (threading.settrace) are not for us.
            with suppress(RuntimeError):
                start_new_thread(self._run, (self._generation + 1,))
                self._generation += 1
                self._running = True

    def count_cancelled(self) -> None:
        """Count a cancelled timer; drop the cancelled ones when they are more than half of all."""
        with self.lock:
            self._cancelled += 1
            if self._cancelled > _COMPACT_ABOVE and self._cancelled * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].action is not None]
                heapify(self._heap)
                self._cancelled = 0
                # What it waits for may be gone; it finds out when it wakes.
                self._next_due = self._heap[0][0] if self._heap else float("inf")

    def stop(self) -> None:
        """Drop all timers and let the thread end. A later timer starts another."""
        with self.lock:
            self._heap.clear()
            self._cancelled = 0
            self._running = False
            self._generation += 1
            self._wake_thread()

    def _wake_thread(self) -> None:
        # A lock is the cheapest thing to wait on with a timeout. Another thread, or a signal handler in
        # this one, may have released it just now: then the thread is awake already.
        try:
            self._wake_lock.release()
        except RuntimeError:
            return

    def _run(self, generation: int) -> None:
        while True:
            due: list[Callable[[], None]] = []
            with self.lock:
                if generation != self._generation:
                    return
                now = monotonic()
                while self._heap and self._heap[0][0] <= now:
                    action = heappop(self._heap)[2].action
                    if action is None:
                        self._cancelled -= 1
                    else:
                        due.append(action)
                self._next_due = self._heap[0][0] if self._heap else float("inf")
                wait = self._next_due - now
            for action in due:
                action()
            if not due:
                self._wake_lock.acquire(timeout=min(wait, threading.TIMEOUT_MAX) if self._heap else -1)
