"""Pretrained weights from a file, put into a network."""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from fer_utils.competition import DataError
from fer_utils.config import ConfigError
from fer_utils.data.files.list_files import walk
from fer_utils.data.locate import KAGGLE_INPUT
from fer_utils.faces.align import LANDMARKS
from fer_utils.faces.face_network import PUBLISHED, FaceResNet, is_face_network, read_dlib
from fer_utils.files import find_path

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".dat")
# Fewer of a network's numbers than this show that the file belongs to another network.
LEAST_SHARE = 0.5
# What other programs put before the names of the tensors.
PREFIXES = re.compile(r"^((module|model|backbone|net|encoder|_orig_mod)\.)+")
HOW_TO_ATTACH = (
    "on Kaggle attach a dataset or model that holds it (Add Input) and set weights to the file's name, "
    "elsewhere to its path"
)


@dataclass(frozen=True)
class Loaded:
    """What `load_weights` did: the file's name, its SHA-256, and a sentence on what was loaded."""

    file: str
    sha256: str
    report: str


def find_weights(name: str, inputs: Path = KAGGLE_INPUT) -> Path:
    """The file of weights called `name`: a path; a folder that holds one such file; or, in the data attached
    on Kaggle (`inputs`), the name of a file, with or without its suffix, or of a folder that holds one.

    Raises:
        ConfigError: there is none, or several.
    """
    try:
        place = find_path(name)
        found, where = ([place] if place.is_file() else _files(place)), f"in {place}"
    except DataError as error:
        files = _files(inputs) if inputs.is_dir() else []
        folders = {file: file.relative_to(inputs).parent.parts for file in files}
        found = [file for file in files if name in (file.name, file.stem, *folders[file])]
        where = f"called {name!r} in {inputs}" if files else f"({error})"
    if not found:
        raise ConfigError(f"weights: no file with {', '.join(SUFFIXES)} at its end {where}: {HOW_TO_ATTACH}")
    if len(found) > 1:
        raise ConfigError(
            f"weights: {len(found)} files {where}: name one of {', '.join(map(str, found[:4]))}"
        )
    return found[0]


def start_weights(model: nn.Module, name: str) -> Loaded | None:
    """Give a new network the weights of the file called `name`; nothing for "none".

    Raises:
        ConfigError: it cannot be found, read or used; or a network that is nothing without weights has none.
    """
    if name != "none":
        return load_weights(model, find_weights(name))
    if is_face_network(model):
        raise ConfigError(f"weights: face_resnet starts from published ones: set weights to {PUBLISHED}")
    return None


def load_weights(model: nn.Module, file: Path) -> Loaded:
    """Give `model` the weights in a safetensors file or a checkpoint of torch (read without running code).

    Tensors are matched by name and shape, after timm's own conversion for this network; or, if the names are
    another program's, by their order where all kinds and shapes follow each other in the same way. A first
    convolution for colours is summed for grey images, and one for grey images is shared between colours. The
    classifier starts again if the number of its outputs differs (those of a second task count, too).

    Raises:
        ConfigError: the file cannot be read, or is of another network.
    """
    own = model.state_dict()
    given = _read(model, file)
    convolutions = (name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    first = next((f"{name}.weight" for name in convolutions), None)
    chosen = _by_name(own, given, first)
    how = "by name"
    # The classifiers of face_resnet are larger than the rest, which is what counts.
    needed = {name: tensor for name, tensor in own.items() if not name.startswith("backbone.heads.")}
    if _share(needed, chosen) < LEAST_SHARE:
        in_order = _by_order(own, given, first)
        chosen, how = (in_order, "by the order of their shapes") if in_order else (chosen, how)
    share = _share(needed, chosen)
    new = [name for name in own if name not in chosen]
    if share < LEAST_SHARE:
        raise ConfigError(
            f"weights: {file} has {100 * share:.0f} % of this network, so it belongs to another one. Not in "
            f"it, for instance: {_listed(own, new)}; there instead: {_listed(given, list(given))}"
        )
    if is_face_network(model) and "backbone.heads.0.2.weight" in new and file.suffix.lower() != ".dat":
        problem = "was saved when one crop of a face was looked at"
        raise ConfigError(f"weights: {file} {problem}: start from {PUBLISHED}")
    start_classifier(model)
    model.load_state_dict(model.state_dict() | chosen)
    rest = f"; not in it: {_listed(own, new)}" if new else ""
    found = f"{len(chosen)} of {len(own)} tensors ({100 * _share(own, chosen):.1f} % of the numbers)"
    report = f"{found} from {file.name}, {how}{rest}"
    with open(file, "rb") as content:
        return Loaded(file.name, hashlib.file_digest(content, "sha256").hexdigest(), report)


def classifiers_of(model: nn.Module) -> list[nn.Linear]:
    """The linear layer that gives the logits: what timm says of its networks, else the last one; none if it
    is of another kind, and face_resnet has several."""
    backbone = getattr(model, "backbone", model)
    if is_face_network(model):
        return [head[-1] for head in backbone.heads]
    if hasattr(backbone, "get_classifier"):
        layers = [backbone.get_classifier()]
    else:
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1:]
    return [layer for layer in layers if isinstance(layer, nn.Linear)]


def start_classifier(model: nn.Module) -> None:
    """Set the classifier to zero: on published features, which are large, a random one is wrong with
    confidence, and its loss is far above that of guessing."""
    for layer in classifiers_of(model):
        for p in layer.parameters():
            nn.init.zeros_(p)


def _files(folder: Path) -> list[Path]:
    found = [folder / name for name, _ in walk(folder) if name.lower().endswith(SUFFIXES)]
    return sorted(path for path in found if path.name != LANDMARKS)  # which lies beside dlib's network


def _read(model: nn.Module, file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without the prefixes of other programs."""
    from timm.models import load_state_dict  # slow to import

    backbone = getattr(model, "backbone", model)
    if file.suffix.lower() == ".dat":
        if not isinstance(backbone, FaceResNet):
            raise ConfigError(f"weights: {file} is in dlib's format, which is for the model face_resnet")
        return read_dlib(backbone, file)
    try:
        state = load_state_dict(str(file), use_ema=True, device="cpu", weights_only=True)
        state = {PREFIXES.sub("", name): tensor for name, tensor in state.items()}
        convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
        state = convert(state, backbone) if convert else state
    except Exception as error:  # a file may hold anything
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"weights: {file} cannot be read as weights ({type(error).__name__}: {reason})"
        ) from error
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


def _by_name(own: dict[str, Tensor], given: dict[str, Tensor], first: str | None) -> dict[str, Tensor]:
    chosen = {}
    for name, tensor in own.items():
        other = given.get(PREFIXES.sub("", name))
        fitting = None if other is None else _fitting(other, tensor, name == first)
        if fitting is not None:
            chosen[name] = fitting
    return chosen


def _by_order(own: dict[str, Tensor], given: dict[str, Tensor], first: str | None) -> dict[str, Tensor]:
    """The given tensors in the places of ours, if both have as many, of the same kinds (weight, bias,
    running_mean, ...) and shapes, but for the classifier's; else none."""
    if len(own) != len(given):
        return {}
    chosen = {}
    for (name, tensor), (other_name, other) in zip(own.items(), given.items(), strict=True):
        fitting = _fitting(other, tensor, name == first)
        if fitting is not None and name.rpartition(".")[2] == other_name.rpartition(".")[2]:
            chosen[name] = fitting
    return chosen if list(own)[: len(chosen)] == list(chosen) and len(own) - len(chosen) <= 2 else {}


def _fitting(given: Tensor, own: Tensor, is_first: bool) -> Tensor | None:
    """`given` in the shape of `own`, or None."""
    if is_first and given.ndim == own.ndim and given.shape[1] != own.shape[1]:
        given = given.sum(1, keepdim=True).expand(-1, own.shape[1], -1, -1) / own.shape[1]
    return given.to(own.dtype) if given.shape == own.shape else None


def _share(own: dict[str, Tensor], chosen: dict[str, Tensor]) -> float:
    """Which share of the numbers in `own` is chosen."""
    sizes = {name: tensor.numel() for name, tensor in own.items()}
    return sum(size for name, size in sizes.items() if name in chosen) / sum(sizes.values())


def _listed(tensors: dict[str, Tensor], names: list[str]) -> str:
    shown = [f"{name} {list(tensors[name].shape)}" for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
