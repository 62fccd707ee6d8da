"""The options that `tools.sweep` and `tools.reproduce` share."""

from __future__ import annotations

import argparse


def options_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows the description as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def parse_run_options(
    parser: argparse.ArgumentParser, arguments: list[str], out: str, at_once: int
) -> argparse.Namespace:
    """Add --data, --device, --out, --at-once and --minutes to `parser`, and parse.

    Args:
        out: the default of --out, in words.
        at_once: the default of --at-once, and the least it may be.
    """
    add = parser.add_argument
    add("--data", help="path of the data, as in the notebooks")
    add("--device", help="auto, cuda or cpu")
    add("--out", help=f"folder of the runs; default: {out}")
    add("--at-once", type=int, default=at_once, help="runs that share a GPU, or the cores of a CPU")
    add("--minutes", type=float, default=0.0, help="stop after so many minutes; 0: no limit")
    options = parser.parse_args(arguments)
    if options.at_once < at_once or options.minutes < 0:
        parser.error(f"--at-once must be at least {at_once}, and --minutes not negative")
    return options
