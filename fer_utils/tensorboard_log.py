"""TensorBoard beside a run, where `track` asks for it: config, numbers of each epoch, saved figures."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from fer_utils.config import Config, ConfigError

FOLDER = "tensorboard"


def check_tracking(config: Config) -> None:
    """Raise a ConfigError where `track` asks for TensorBoard and that is not installed."""
    if config.track == "tensorboard":
        _writer_class()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # here, since few have it and it loads slowly
    except ImportError as error:
        advice = 'type pip install tensorboard, or set track = "none": make runs compares runs without it'
        raise ConfigError(f"track is 'tensorboard', which is not installed ({error}): {advice}") from None
    return SummaryWriter


class Tracker:
    """Copies the numbers of a run in `out` to TensorBoard; a context manager. It does nothing where `track`
    is "none", or where it is `silent`. What an earlier session wrote of epochs after `done` is replaced."""

    def __init__(self, config: Config, out: Path, done: int = 0, silent: bool = False):
        self.writer = None
        if config.track == "tensorboard" and not silent:
            self.writer = _writer_class()(log_dir=str(out / FOLDER), purge_step=done + 1)
            rows = "".join(f"| {name} | {value} |\n" for name, value in config.to_dict().items())
            self.writer.add_text("config", f"| parameter | value |\n|---|---|\n{rows}", done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        if self.writer is not None:
            self.writer.close()

    def report(self, row: dict[str, Any]) -> None:
        """Write one row of the history, each number under the name of its column."""
        if self.writer is not None:
            for name in row.keys() - {"epoch"}:
                self.writer.add_scalar(name, row[name], row["epoch"])
            self.writer.flush()


def track_figure(png: Path, out: Path) -> None:
    """Show the figure in the file `png` in TensorBoard too, where the run in `out` is tracked and TensorBoard
    is installed: the run may have been trained elsewhere."""
    if not (out / FOLDER).is_dir():
        return
    with suppress(ConfigError):
        import matplotlib.image

        with _writer_class()(log_dir=str(out / FOLDER)) as writer:
            writer.add_image(png.stem, matplotlib.image.imread(png)[..., :3], dataformats="HWC")
