"""How a long training speaks: a bar with the time left in JupyterLab, one plain line per epoch elsewhere.

Under papermill every refresh of a bar would become a record in the saved notebook.
"""

from __future__ import annotations

import os
from typing import Any, Self


class Progress:
    """Reports epochs as they finish; use it as a context manager. `silent` says nothing at all."""

    def __init__(self, epochs: int, done: int = 0, silent: bool = False):
        self.epochs = epochs
        self.bar = None
        self.silent = silent
        if silent:
            return
        # Jupyter's server names the notebook in this variable; papermill and the shell do not set it.
        if os.environ.get("JPY_SESSION_NAME"):
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
