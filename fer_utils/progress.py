"""How long work speaks: a bar with the time left in JupyterLab; elsewhere a plain line per epoch, or nothing.

Under papermill every refresh of a bar would become a record in the saved notebook.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Self

# Seconds: work that is done by then shows none.
WORTH_A_BAR = 2.0


def interactive() -> bool:
    """Whether somebody looks at this notebook: Jupyter's server names it in a variable, which papermill and
    the shell do not set."""
    return bool(os.environ.get("JPY_SESSION_NAME")) and find_spec("ipywidgets") is not None


def bar(work: Iterable[Any], what: str, total: int | None = None) -> Iterable[Any]:
    """`work` to iterate over, behind a bar with the time left where somebody looks.

    Args:
        what: in a word or two.
        total: how much work there is, where its length does not tell.
    """
    if not interactive():
        return work
    from tqdm.auto import tqdm

    return tqdm(work, desc=what, total=total, leave=False, delay=WORTH_A_BAR)


class Progress:
    """Reports epochs as they finish; use it as a context manager. `silent` says nothing at all."""

    def __init__(self, epochs: int, done: int = 0, silent: bool = False):
        self.epochs = epochs
        self.bar = None
        self.silent = silent
        if silent:
            return
        if interactive():
            from tqdm.auto import tqdm

            self.bar = tqdm(total=epochs, initial=done, unit="epoch")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()

    def report(self, row: dict[str, Any], seconds: float) -> None:
        """Show one row of the history, and the seconds since the start."""
        if self.silent:
            return
        accuracy = max(row["valid_accuracy"], row.get("valid_accuracy_average", 0))
        text = f"train loss {row['train_loss']:.3f}  valid accuracy {100 * accuracy:.1f} %"
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update()
        else:
            print(f"epoch {row['epoch']:>3}/{self.epochs}  {text}  {seconds:.0f} s", flush=True)

    def say(self, line: str) -> None:
        """Print a line of its own."""
        if not self.silent:
            print(line, flush=True)
