"""Retrain a peer's network by its own published recipe, honestly: the validation split chooses the epoch.

python -m benchmarks.train_peer NAME --data PATH [--epochs N] [--seed S] [--out FOLDER] [--minutes M]

Its images go through its own transforms, one by one, its learning rate falls by its own schedule, and the
epoch is chosen by its own ten crops, averaged. What differs from the published code: images are scaled as
our networks have them, a GPU computes in bfloat16, and the last, smaller batch of an epoch is left out.
Interrupted, the same command goes on after the last whole epoch. It leaves history.csv, valid.npz, test.npz,
metrics.json and submission.csv.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from benchmarks import peers
from fer_utils.competition import Competition, DataError
from fer_utils.config import ConfigError
from fer_utils.data.load import load_competition
from fer_utils.data.submission_csv import write_submission
from fer_utils.files import OutputError, atomic_write, resolve_out, write_json
from fer_utils.learning.device import choose_device, environment
from fer_utils.learning.metrics import accuracy_of, describe, evaluate


def train_peer(
    recipe: peers.Recipe,
    competition: Competition,
    out: Path,
    device: torch.device,
    epochs: int = 0,
    seed: int = 0,
    workers: int = 0,
    minutes: float = 0.0,
) -> bool:
    """Train, keep the best epoch by the validation accuracy of ten crops, and write what came of it.

    Args:
        epochs: 0 takes the published number.
        workers: processes that transform images.
        minutes: after the first, begin no epoch that would not end within these; 0: no limit.

    Returns:
        Whether all epochs are done; if not, the same call goes on.

    Raises:
        ConfigError: `out` holds another peer's training, or one with another seed.
        DataError: `out` holds a training on other data, or its checkpoint is damaged.
    """
    epochs, start, checkpoint = epochs or recipe.epochs, time.monotonic(), out / "checkpoint.pt"
    torch.manual_seed(seed)
    model, optimizer = recipe.build(len(competition.class_names), device)
    schedule = make_schedule(recipe, optimizer)
    state = {"seconds": 0.0, "history": [], "accuracy": -1.0, "epoch": 0, "best": {}}
    run = {"peer": recipe.name, "seed": seed, "data": competition.fingerprint}
    if checkpoint.is_file():
        saved = _read(checkpoint, run, device)
        model.load_state_dict(saved.pop("model"))
        optimizer.load_state_dict(saved.pop("optimizer"))
        schedule.load_state_dict(saved.pop("schedule"))
        state = {name: saved[name] for name in state}
    train, valid = competition.train, competition.valid
    loader = peers.loader(train.images, train.labels, recipe.transform, recipe.batch_size, workers)
    for epoch in range(len(state["history"]), epochs):
        begun = time.monotonic()
        torch.manual_seed(seed * 1_000_003 + epoch)  # the order and the transforms of this epoch
        loss = _epoch(recipe, model, optimizer, loader, device)
        answers = crop_probs(model, valid.images, recipe.crop).argmax(1)
        accuracy = accuracy_of(answers == valid.labels)["accuracy"]
        schedule.step(*([accuracy] if recipe.schedule == "plateau" else []))
        if accuracy > state["accuracy"]:
            best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            state |= {"accuracy": accuracy, "epoch": epoch + 1, "best": best}
        state["seconds"] += time.monotonic() - begun
        state["history"].append({"epoch": epoch + 1, "train_loss": loss, "valid_accuracy": accuracy})
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
        with atomic_write(checkpoint) as temporary:
            torch.save({name: part.state_dict() for name, part in parts.items()} | state | run, temporary)
        print(f"epoch {epoch + 1:3}/{epochs}  train loss {loss:.3f}  valid accuracy {100 * accuracy:.1f} %  "
              f"{state['seconds']:.0f} s", flush=True)  # fmt: skip
        longest = 1.1 * (time.monotonic() - begun)
        if minutes and epoch + 1 < epochs and time.monotonic() - start + longest > 60 * minutes:
            print("out of time; the same command goes on from here")
            return False
    _write(recipe, competition, out, model, state, seed)
    return True


def _read(checkpoint: Path, run: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """What a checkpoint holds, if it is one of `run`."""
    try:
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        then = {name: saved[name] for name in run}
    except Exception as error:  # torch raises whatever the bytes lead it to
        raise DataError(
            f"{checkpoint} is damaged ({type(error).__name__}): remove it to begin again"
        ) from error
    if then["data"] != run["data"]:
        raise DataError(f"{checkpoint} is of other data: choose another --out")
    if then != run:
        raise ConfigError(f"{checkpoint} is of {then['peer']}, seed {then['seed']}: choose another --out")
    return saved


def make_schedule(recipe: peers.Recipe, optimizer: torch.optim.Optimizer):
    """The schedule that the recipe names, stepped once an epoch."""
    if recipe.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.75, patience=5)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9 ** max(0, (epoch - 80) // 5))


def _epoch(recipe: peers.Recipe, model: nn.Module, optimizer, loader, device: torch.device) -> float:
    """One pass over the training split; its mean loss."""
    total = torch.zeros((), device=device)
    model.train()
    for images, labels in loader:
        crops = images.shape[1] if images.ndim == 5 else 1
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(images.to(device).flatten(0, -4))
        loss = F.cross_entropy(logits.float(), labels.to(device).repeat_interleave(crops))
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip:
            nn.utils.clip_grad_value_(model.parameters(), recipe.clip)
        optimizer.step()
        total += loss.detach()
    return (total / len(loader)).item()


@torch.no_grad()
def crop_probs(model: nn.Module, images: np.ndarray, crop: int, crops: int = 10) -> np.ndarray:
    """Probabilities float32 [N, C] of uint8 images, from their centre or averaged over the corners and the
    centre and their mirror images, as the peers do."""
    model.eval()
    device, cut = next(model.parameters()).device, v2.TenCrop(crop) if crops == 10 else v2.CenterCrop(crop)

    def probs(batch: Tensor) -> Tensor:
        batch = batch.to(device).float() / 255
        some = cut(batch) if crops == 10 else (cut(batch),)
        return torch.stack([model(one).float() for one in some]).mean(0).softmax(1).cpu()

    return torch.cat([probs(batch) for batch in torch.tensor(images).split(256)]).numpy()


def _write(
    recipe: peers.Recipe, competition: Competition, out: Path, model: nn.Module, state: dict, seed: int
) -> None:
    model.load_state_dict(state["best"])
    scores = {}
    for name in ("valid", "test"):
        split = competition.splits.get(name)
        if split is None:
            continue
        plain, views = (crop_probs(model, split.images, recipe.crop, crops) for crops in (1, 10))
        with atomic_write(out / f"{name}.npz") as temporary:
            known = {} if split.labels is None else {"labels": split.labels}
            np.savez(temporary, ids=split.ids.astype(np.str_), probs=plain, probs_views=views, **known)
        if name == "valid":
            for kind, probs in (("plain", plain), ("views", views)):
                scores[kind] = evaluate(probs, split.labels, competition.class_names)
        else:
            write_submission(competition, views, out / "submission.csv")
    with atomic_write(out / "history.csv") as temporary:
        pd.DataFrame(state["history"]).to_csv(temporary, index=False)
    device = next(model.parameters()).device
    training = {
        "peer": recipe.name,
        "seed": seed,
        "epochs": len(state["history"]),
        "published_epochs": recipe.epochs,
        "chosen_epoch": state["epoch"],
        "seconds": round(state["seconds"], 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "environment": environment(device, torch.bfloat16 if device.type == "cuda" else torch.float32),
    }
    write_json(out / "metrics.json", {"training": training, "valid": scores})
    print(f"valid accuracy, plain:     {describe(scores['plain'])}")
    print(f"valid accuracy, ten crops: {describe(scores['views'])}")


def main(arguments: list[str]) -> int:
    """Train a peer from the command line; returns the exit status."""
    names = {recipe.name.split()[0]: recipe for recipe in peers.RECIPES}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(names))
    parser.add_argument("--data", default="auto", help="as in the notebooks")
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("--epochs", type=int, default=0, help="0: as published")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="default: outputs/peers/NAME-seedS")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop in time; 0: no limit")
    options = parser.parse_args(arguments)
    if min(options.epochs, options.seed, options.minutes) < 0:
        parser.error("--epochs, --seed and --minutes must not be negative")
    try:
        device, competition = choose_device(options.device), load_competition(options.data)
        out = resolve_out(options.out or f"outputs/peers/{options.name}-seed{options.seed}")
        workers = os.cpu_count() or 0 if device.type == "cuda" else 0  # on a CPU they take the net's cores
        train_peer(
            names[options.name],
            competition,
            out,
            device,
            options.epochs,
            options.seed,
            workers,
            options.minutes,
        )
    except (ConfigError, DataError, OutputError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
