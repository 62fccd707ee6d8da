"""Arrays too large for memory lie in files, and are used like any other."""

import threading

import numpy as np
import pytest
import torch
from conftest import tiny_competition

from fer_utils import arrays_on_disk
from fer_utils.competition import copies_of
from fer_utils.config import Config
from fer_utils.files import OutputError
from fer_utils.learning.predict import view_probs
from fer_utils.learning.training_loop import batches, gather, place
from fer_utils.run.train import fit

RUN = {"image_size": 20, "model": "small", "width": 0.125, "epochs": 2, "batch_size": 16}
RUN |= {"precision": "fp32", "device": "cpu"}


@pytest.fixture
def all_is_large(monkeypatch, tmp_path):
    monkeypatch.setattr(arrays_on_disk, "MOST_IN_MEMORY", 1000)
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))


def pictures(n=60):
    return np.random.default_rng(0).integers(0, 256, (n, 1, 8, 8), np.uint8)


ROWS = {
    "few": np.array([5, 2, 2]),
    "many": np.arange(40),
    "mask": np.arange(60) % 2 == 0,
    "none": np.arange(0),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_rows_are_taken_as_from_any_array(rows, all_is_large):
    taken = arrays_on_disk.take(pictures(), rows)
    assert np.array_equal(taken, pictures()[rows])
    assert isinstance(taken, np.memmap) == (taken.nbytes > 1000)


def test_large_arrays_are_joined_in_a_file(all_is_large, monkeypatch):
    monkeypatch.setattr(arrays_on_disk, "ROWS_TOGETHER", 7)
    joined = arrays_on_disk.concatenate([pictures(), pictures()[:9]])
    assert isinstance(joined, np.memmap)
    assert np.array_equal(joined, np.concatenate([pictures(), pictures()[:9]]))
    assert not isinstance(arrays_on_disk.concatenate([pictures()[:2]] * 2), np.memmap)


def test_the_file_leaves_nothing_behind(all_is_large, tmp_path):
    array = arrays_on_disk.empty((50, 50))
    array[:] = 3
    assert not list((tmp_path / "cache").iterdir()) and array.sum() == 7500


def test_without_room_the_message_says_what_to_do(all_is_large):
    with pytest.raises(OutputError, match=r"cache: 9000000\.0 GB.*set FER_CACHE"):
        arrays_on_disk.empty((9_000_000, 1_000_000_000))


def test_batches_from_a_file_are_those_from_memory(all_is_large):
    images, device = torch.from_numpy(pictures()), torch.device("cpu")
    order = batches(60, Config(batch_size=4), epoch=0)
    assert len(order) == 15
    for rows, batch in zip(order[3:], gather(images, order[3:], device), strict=True):
        assert torch.equal(batch, images[rows])


def test_a_training_that_is_left_early_ends_its_thread(all_is_large):
    images = torch.from_numpy(pictures())
    before = threading.active_count()
    fetched = gather(images, batches(60, Config(batch_size=4), epoch=0), torch.device("cpu"))
    next(fetched)
    assert threading.active_count() == before + 1
    fetched.close()
    assert threading.active_count() == before


def test_a_run_on_a_large_set_has_the_same_bytes(tmp_path, monkeypatch):
    competition = tiny_competition()
    runs = [fit(Config(**RUN, out=str(tmp_path / "memory")), competition)]
    monkeypatch.setattr(arrays_on_disk, "MOST_IN_MEMORY", 1000)
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))
    splits = {name: split.take(np.arange(len(split))) for name, split in competition.splits.items()}
    assert isinstance(splits["train"].images, np.memmap)
    large = tiny_competition()
    for name, split in splits.items():
        object.__setattr__(large, name, split)
    runs.append(fit(Config(**RUN, out=str(tmp_path / "disk")), large))
    weights = [(run.out / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1] and large.fingerprint == competition.fingerprint
    assert place(splits["train"].images, torch.device("cpu")).data_ptr() == splits["train"].images.ctypes.data
    model = runs[0].model
    assert np.array_equal(*(view_probs(model, c.valid.images) for c in (competition, large)))


def test_copies_are_found_in_any_of_several_sets():
    a, b, c = pictures()[:10], pictures()[5:20], pictures()[30:40]
    assert copies_of(np.concatenate([a[:2], b[-1:], c]), a, c).tolist() == [True, True, False] + [True] * 10
