"""The command line of every module: errors in one line, and what the exit status means."""

from __future__ import annotations

import argparse
import signal
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable

# Errors whose message says all: a traceback would only hide it. By name, so that nothing heavy is imported.
SPEAKING_ERRORS = ("ConfigError", "DataError", "OutputError", "TrainingError", "OutOfTime")


def run_command(work: Callable[[str, str | None], None], description: str, arguments: list[str]) -> int:
    """Call `work` with the path of a config and an `out` from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "config", help="JSON file of parameters, or the config.json of a run to resume or repeat"
    )
    parser.add_argument("--out", help="another folder than the config's, for instance to repeat a run")
    options = parser.parse_args(arguments)
    return exit_status(lambda: work(options.config, options.out))


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
