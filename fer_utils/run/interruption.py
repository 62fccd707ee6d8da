"""Interruptions: Ctrl-C and JupyterLab's stop button (SIGINT), the end of a machine's hours (SIGTERM).

A training step must not be cut in two: a signal during a step takes effect after it, when the state is whole
and can be saved. Anywhere else it takes effect at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Self

# A step may take longer than the sender waits (systemd and Docker wait 10 s, some schedulers 2 s): then the
# step is cut, and the run resumes from its last checkpoint.
PATIENCE_SECONDS = 1.0
# Python handles a signal only between two calls into torch, and one call may take seconds on a slow machine.
# The sender of SIGTERM does not wait for that: after so much more the process ends itself, as safely as if it
# were killed.
LAST_SECONDS = 0.6


class Interrupted(KeyboardInterrupt):
    """Training was interrupted and can resume later; the message says how."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: nothing broke, and the message has been printed."""
        return [type(self).__name__]


class _Stop(BaseException):
    """Raised by the handler; `Interruption` turns it into words."""


class Interruption:
    """In this context, signals wait for the end of `whole` blocks (unless `defer` is False).

    On leaving, SIGINT becomes `Interrupted`; SIGTERM has its usual effect, which is to end the process with
    that signal. Only the main thread receives signals: elsewhere this does nothing.
    """

    def __init__(self, defer: bool = True):
        self.defer = defer
        self.received: signal.Signals | None = None
        self.message = "stopped; the same command resumes from the last checkpoint"
        self._waits = False  # whether a signal waits for the end of a block
        self._first = 0.0  # when the first signal came
        self._over = threading.Event()
        self._previous: dict[signal.Signals, object] = {}
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            if os.name == "posix":
                self._watch_signals()
            for number in (signal.SIGINT, signal.SIGTERM):
                # A background job that ignores Ctrl-C still ignores it.
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        self._over.set()
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._pipe[1])  # which ends the watching thread
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        if kind is _Stop or (kind is not None and self.received == signal.SIGTERM):
            with suppress(OSError, ValueError):  # standard output may be closed
                print(self.message if kind is _Stop else f"{kind.__name__}: {error}", flush=True)
            if self.received == signal.SIGTERM:
                signal.raise_signal(signal.SIGTERM)
        if kind is _Stop:
            raise Interrupted(self.message) from None

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A block that must not be cut in two; at its end training stops if a signal came."""
        self._waits = self.defer
        try:
            yield
        finally:
            self._waits = False
        if self.received is not None:
            raise _Stop

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self._first = self._first or now
        self.received = signal.Signals(number)
        # A terminal's Ctrl-C reaches a training twice, once through the process that launched it.
        if not self._waits or now - self._first > PATIENCE_SECONDS / 2:
            raise KeyboardInterrupt if self._over.is_set() else _Stop

    def _watch_signals(self) -> None:
        """Notice signals at once, in a thread: the interpreter writes the number of each into a pipe."""
        reading, writing = self._pipe = os.pipe()
        os.set_blocking(writing, False)
        threading.Thread(target=self._watch, args=(reading,), daemon=True).start()
        self._wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def _watch(self, descriptor: int) -> None:
        while read := os.read(descriptor, 1):
            number = read[0]
            if number in self._previous and not self._over.wait(PATIENCE_SECONDS) and self._waits:
                os.kill(os.getpid(), number)  # again, which ends the block
            if number == signal.SIGTERM and not self._over.wait(LAST_SECONDS):
                with suppress(OSError, ValueError):
                    print(self.message, flush=True)
                os._exit(128 + signal.SIGTERM)
        os.close(descriptor)
