"""Progress of long work: in JupyterLab a bar with the time left, elsewhere a line per epoch, or nothing.

Under papermill every refresh of a bar would be saved in the notebook.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, Self

BAR_DELAY = 2.0  # seconds; shorter work shows no bar


def interactive() -> bool:
    """Whether this is an interactive notebook: only Jupyter's server sets this variable."""
    return bool(os.environ.get("JPY_SESSION_NAME")) and find_spec("ipywidgets") is not None


def bar(work: Iterable[Any], what: str, total: int | None = None) -> Iterable[Any]:
    """Iterate over `work`, in an interactive notebook with a bar named `what` that shows the time left.
    `total` is the number of items, if `work` has no length."""
    if not interactive():
        return work
    from tqdm.auto import tqdm  # here, since it loads ipywidgets

    return tqdm(work, desc=what, total=total, leave=False, delay=BAR_DELAY)


class Progress:
    """Reports epochs as they finish; a context manager. `silent` prints nothing."""

    def __init__(self, epochs: int, done: int = 0, silent: bool = False):
        self.epochs, self.silent, self.bar = epochs, silent, None
        if interactive() and not silent:
            from tqdm.auto import tqdm  # here, since it loads ipywidgets

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
        if "valid_metric" in row:  # what chooses the epoch
            metric = max(row["valid_metric"], row.get("valid_metric_average", -math.inf))
            text += f"  metric {metric:.3f}"
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update()
        else:
            print(f"epoch {row['epoch']:>3}/{self.epochs}  {text}  {seconds:.0f} s", flush=True)
