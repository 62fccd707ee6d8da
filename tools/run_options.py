"""The command-line options that several tools share."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import Any


def options_parser(description: str | None) -> ArgumentParser:
    """A parser whose help shows the description as it is written."""
    return ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)


def parse_run_options(parser: ArgumentParser, arguments: list[str], **defaults: Any) -> Namespace:
    """Add --data, --device, --out, --at-once and --minutes to `parser` with these defaults, and parse.
    The default of --at-once is the least it may be."""
    add = parser.add_argument
    add("--data", help="path of the data, as in the notebooks")
    add("--device", help="auto, cuda or cpu")
    add("--out", help="folder of the runs; the default lies in outputs/")
    add("--at-once", type=int, help="runs that share a GPU, or the cores of a CPU")
    add("--minutes", type=float, default=0.0, help="time for everything; 0: no limit")
    parser.set_defaults(**defaults)
    options = parser.parse_args(arguments)
    if options.at_once < defaults["at_once"] or options.minutes < 0:
        parser.error(f"--at-once must be at least {defaults['at_once']}, and --minutes not negative")
    return options
