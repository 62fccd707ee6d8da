"""Which views of test-time augmentation are worth their time: python -m benchmarks.views --data FOLDER

The networks of a committed result answer the validation split in some fifty fixed views; averages over sets
of views are compared with what `views` has. Choosing among the sets is itself judged by cross-fitting: the
best set of one half of the images answers the other half. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fer_utils.data.load import load_competition
from fer_utils.faces.face_network import aligned
from fer_utils.learning.augment import affine, to_float
from fer_utils.learning.metrics import cross_calibrated, log_loss, paired_test
from fer_utils.run.committed_results import load_reference

# A view: degrees, change of size, shift to the left and up (shares of the size). All come mirrored too.
Moved = tuple[float, float, float, float]
PLAIN: Moved = (0, 0, 0, 0)


def _crosses(step: float) -> list[Moved]:
    return [(0, 0, x, y) for x, y in ((step, 0), (-step, 0), (0, step), (0, -step))]


def _corners(step: float) -> list[Moved]:
    return [(0, 0, x, y) for x in (step, -step) for y in (step, -step)]


def _zooms(step: float) -> list[Moved]:
    return [(0, step, 0, 0), (0, -step, 0, 0)]


def _turns(step: float) -> list[Moved]:
    return [(step, 0, 0, 0), (-step, 0, 0, 0)]


SETS: dict[str, list[Moved]] = {
    "`mirror`": [PLAIN],
    "`zoom`: and 8 % smaller and larger": [PLAIN, *_zooms(0.08)],
    "and 15 % smaller and larger": [PLAIN, *_zooms(0.15)],
    "and 8 % larger alone": [PLAIN, (0, 0.08, 0, 0)],
    "and shifts of 1 pixel": [PLAIN, *_crosses(1 / 48)],
    "`shift`: and shifts of 2.4 pixels": [PLAIN, *_crosses(0.05)],
    "and shifts of 4 pixels": [PLAIN, *_crosses(4 / 48)],
    "and shifts of 2.4 pixels, corners too": [PLAIN, *_crosses(0.05), *_corners(0.05)],
    "and turns of 5 degrees": [PLAIN, *_turns(5)],
    "and turns of 10 degrees": [PLAIN, *_turns(10)],
    "`shift` with `zoom`": [PLAIN, *_crosses(0.05), *_zooms(0.08)],
    "`shift` with turns of 5 degrees": [PLAIN, *_crosses(0.05), *_turns(5)],
    "`shift`, `zoom`, turns of 5 and 10 degrees": [
        PLAIN, *_crosses(0.05), *_zooms(0.08), *_turns(5), *_turns(10)],
    "all of these": [
        PLAIN, *_crosses(1 / 48), *_crosses(0.05), *_crosses(4 / 48), *_corners(0.05),
        *_zooms(0.08), *_zooms(0.15), *_turns(5), *_turns(10)],
}  # fmt: skip
BASE = "`shift`: and shifts of 2.4 pixels"  # what `best` and `standard` use


@torch.no_grad()
def moved_probs(model: nn.Module, images: np.ndarray, moved: Moved) -> np.ndarray:
    """Class probabilities float32 [2, N, C] of uint8 images [N, C, H, W], moved, as they are and mirrored."""
    model.eval()
    rows = []
    for batch in torch.from_numpy(images).split(512):
        batch = aligned(model, to_float(batch))
        if moved != PLAIN:
            numbers = (torch.full((len(batch), 1, 1, 1), float(value)) for value in moved)
            batch = affine(batch, *numbers, torch.zeros(len(batch), 1, 1, 1))
        rows.append(torch.stack([model(one).softmax(1) for one in (batch, batch.flip(-1))]))
    return torch.cat(rows, dim=1).numpy()


def cross_fitted(probs: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Answers [networks, N, C] of the set of views that is most accurate on the other half of the images,
    the halves being random; `probs` is [sets, networks, N, C]."""
    half = np.random.default_rng(seed).permutation(len(labels)) % 2 == 0
    answers = np.empty_like(probs[0])
    for chosen_on in (half, ~half):
        best = (probs[:, :, chosen_on].argmax(3) == labels[chosen_on]).mean((1, 2)).argmax()
        answers[:, ~chosen_on] = probs[best][:, ~chosen_on]
    return answers


def with_average_weights(networks: Sequence[nn.Module], images: np.ndarray) -> nn.Module:
    """A network whose weights are the means of theirs; its batch statistics are those of `images`, uint8
    [N, C, H, W], in batches of 256."""
    average = copy.deepcopy(networks[0])
    states = [network.state_dict() for network in networks]
    means = {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}
    average.load_state_dict(means)
    for module in average.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
    average.train()
    with torch.no_grad():
        for batch in torch.from_numpy(images).split(256):
            average(to_float(batch))
    return average


def main() -> None:
    """Answer in every view, average, print the table and what choosing gives."""
    parser = argparse.ArgumentParser("python -m benchmarks.views", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="the competition's folder")
    parser.add_argument("--run", default="fer2013-cpu", help="a committed result")
    parser.add_argument("--limit", type=int, default=0, help="of the images; 0: all")
    options = parser.parse_args()
    competition = load_competition(options.data)
    images, labels = competition.valid.images, competition.valid.labels
    if options.limit:
        images, labels = images[: options.limit], labels[: options.limit]
    networks = [run.model for run in load_reference(options.run).runs]
    views = sorted({moved for moves in SETS.values() for moved in moves})
    answered = np.array([[moved_probs(model, images, one) for one in views] for model in networks])
    plain = answered[:, views.index(PLAIN), 0]  # [networks, N, C]
    sets = {"`plain`": plain} | {
        name: answered[:, [views.index(one) for one in moves]].mean((1, 2)) for name, moves in SETS.items()
    }
    geometric = np.exp(np.log(answered[:, [views.index(one) for one in SETS[BASE]]]).mean((1, 2)))
    sets["`shift`, geometric mean"] = geometric / geometric.sum(2, keepdims=True)
    sets["the best of these, chosen on the other half"] = cross_fitted(np.array([*sets.values()]), labels)
    print(f"{len(networks)} networks of {options.run}, {len(labels):,} images\n")
    print("| views | number | accuracy, mean | of their average | against `shift` (average) | log loss |")
    print("|---|---|---|---|---|---|")
    for name, probs in sets.items():
        print(_row(name, probs, sets[BASE], labels), flush=True)
    average = with_average_weights(networks, competition.train.images[:2048])
    alone = moved_probs(average, images, PLAIN).mean(0)
    share = 100 * (alone.argmax(1) == labels).mean()
    print(f"\nthe weights of these networks averaged, `mirror`: {share:.1f} %")


def _row(name: str, probs: np.ndarray, base: np.ndarray, labels: np.ndarray) -> str:
    number = 2 * len(SETS.get(name, [])) or {"`plain`": 1, "`shift`, geometric mean": 10}.get(name, "")
    accuracies = 100 * (probs.argmax(2) == labels).mean(1)
    average, other = probs.mean(0), base.mean(0)
    test = paired_test(average.argmax(1), other.argmax(1), labels)
    gain, low, high = (100 * test[key] for key in ("difference", "ci_low", "ci_high"))
    against = "" if name == BASE else f"{gain:+.2f} ({low:+.2f} to {high:+.2f})"
    loss = log_loss(cross_calibrated(average, labels), labels)
    share = 100 * (average.argmax(1) == labels).mean()
    return f"| {name} | {number} | {accuracies.mean():.2f} % | {share:.2f} % | {against} | {loss:.4f} |"


if __name__ == "__main__":
    main()
