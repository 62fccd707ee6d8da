"""Being told to stop: Ctrl-C, JupyterLab's stop button (SIGINT), the end of a machine's hours (SIGTERM).

A step of training must not be cut in two, so a signal that comes in one is answered after it, when the state
is whole and can be saved; one that comes anywhere else is answered at once.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Self

# A step may take longer than whoever asked will wait (systemd and Docker wait 10 s, some schedulers 2): then
# the step is given up, and the run resumes from its last checkpoint.
PATIENCE_SECONDS = 1.0
# Python hears a signal only between two calls into torch, and one may take seconds on a slow machine. Who
# sends SIGTERM will not wait for that: the process ends itself, as safely as if it were killed.
LAST_SECONDS = 1.6


class Interrupted(KeyboardInterrupt):
    """Training was told to stop and can go on later; the message says how."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: nothing broke, and the message has been printed."""
        return [type(self).__name__]


class _Stop(BaseException):
    """Raised by the handler; `Interruption` turns it into words."""


class Interruption:
    """While in this context, signals to stop wait for the end of `whole` blocks.

    On leaving, SIGINT has become `Interrupted`; SIGTERM does to the process what it would have done before,
    which is to end it with that signal. Only the main thread hears signals: elsewhere this does nothing.
    """

    def __init__(self, defer: bool = True):
        self.defer = defer
        self.received: signal.Signals | None = None
        self.message = "stopped; the same command resumes from the last checkpoint"
        self._inside = 0
        self._first = 0.0  # when the first signal came
        self._over = threading.Event()
        self._previous: dict[signal.Signals, object] = {}
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            if os.name == "posix":
                self._watch_from_now()
            for number in (signal.SIGINT, signal.SIGTERM):
                # A job in the background that is not to hear Ctrl-C shall not hear it now.
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
            with suppress(OSError, ValueError):  # nobody may be listening any more
                print(self.message if kind is _Stop else f"{kind.__name__}: {error}", flush=True)
            if self.received == signal.SIGTERM:
                signal.raise_signal(signal.SIGTERM)
        if kind is _Stop:
            raise Interrupted(self.message) from None

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A block that is not to be cut in two; afterwards `received` tells whether to stop."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def stop_if_asked(self) -> None:
        """Stop here if a signal came during a `whole` block."""
        if self.received is not None:
            raise _Stop

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self._first = now
            if self._inside and self.defer:
                # If the block lasts too long, the same signal again ends it.
                timer = threading.Timer(PATIENCE_SECONDS, self._insist)
                timer.daemon = True
                timer.start()
        self.received = signal.Signals(number)
        # A terminal's Ctrl-C reaches a training twice, once through the process that launched it.
        if not (self._inside and self.defer) or now - self._first > PATIENCE_SECONDS / 2:
            raise KeyboardInterrupt if self._over.is_set() else _Stop

    def _watch_from_now(self) -> None:
        """Hear of signals the moment they come, in a thread: the interpreter writes each into a pipe."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        try:
            threading.Thread(target=self._watch, args=(reading,), daemon=True).start()
        except RuntimeError:  # no memory for a thread
            os.close(reading)
            os.close(writing)
            raise
        self._pipe = reading, writing
        self._wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def _watch(self, descriptor: int) -> None:
        while number := os.read(descriptor, 1):
            if number[0] == signal.SIGTERM and not self._over.wait(LAST_SECONDS):
                with suppress(OSError, ValueError):
                    print(self.message, flush=True)
                os._exit(128 + signal.SIGTERM)
        os.close(descriptor)

    def _insist(self) -> None:
        if self._inside and signal.getsignal(self.received) == self._handle:
            if os.name == "nt":  # where os.kill would end the process there and then
                _thread.interrupt_main(self.received)
            else:
                os.kill(os.getpid(), self.received)
