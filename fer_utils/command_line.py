"""The command line of every module: errors in one line, and what the exit status means."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

# Errors whose message says all: a traceback would only hide it. By name, so that nothing heavy is imported.
SPEAKING_ERRORS = ("ConfigError", "DataError", "OutputError", "TrainingError", "OutOfTime")


def exit_status(work: Callable[[], int | None]) -> int:
    """Do `work` and report what goes wrong on standard error. Returns what `work` returns (None is 0), 1 for
    an error of `SPEAKING_ERRORS`, or 130 where it was interrupted; argument parsers end with 2."""
    try:
        return work() or 0
    except KeyboardInterrupt as error:
        if type(error) is KeyboardInterrupt:  # `Interrupted` has printed what to do
            print("stopped; run the same command again to resume", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        if type(error).__name__ not in SPEAKING_ERRORS:
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
