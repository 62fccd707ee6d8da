"""Downloads, against a stand-in for kagglehub: nothing here touches a network."""

import sys
import types

import pytest
from competitions import flat_test

from fer_utils import load_competition
from fer_utils.competition import DataError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A kagglehub that has one competition and one data set."""
    flat_test(tmp_path / "kept")
    asked = []

    def download(handle):
        asked.append(handle)
        if handle not in ("fer-challenge", "someone/faces"):
            raise ConnectionError(f"403 Client Error.\nYou don't have permission to access {handle}")
        return str(tmp_path / "kept")

    module = types.ModuleType("kagglehub")
    module.competition_download = module.dataset_download = download
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    return asked


@pytest.mark.parametrize(
    "data, handle",
    [
        ("kaggle:competition/fer-challenge", "fer-challenge"),
        ("kaggle:dataset/someone/faces", "someone/faces"),
        ("https://www.kaggle.com/competitions/fer-challenge/data", "fer-challenge"),
        ("https://www.kaggle.com/c/fer-challenge", "fer-challenge"),
        ("https://kaggle.com/datasets/someone/faces?select=train", "someone/faces"),
    ],
)
def test_a_competition_or_data_set_is_fetched_and_read(hub, data, handle):
    competition = load_competition(data)
    assert hub == [handle]
    assert len(competition.train) == 28


@pytest.mark.parametrize(
    "data",
    [
        "kaggle:fer-challenge",
        "kaggle:dataset/faces",
        "kaggle:competition/a/b",
        "kaggle:competition/../x y",
        "https://www.kaggle.com/code/someone/notebook",
    ],
)
def test_other_addresses_are_refused(hub, data):
    with pytest.raises(DataError, match="write kaggle:competition/<slug> or kaggle:dataset/<owner>/<slug>"):
        load_competition(data)
    assert not hub


def test_a_failure_says_what_to_look_at(hub):
    with pytest.raises(DataError, match="ConnectionError: 403 Client Error") as error:
        load_competition("kaggle:competition/other")
    for hint in ("network", "~/.kaggle/kaggle.json", "kaggle.com/competitions/other/rules"):
        assert hint in str(error.value)


def test_without_kagglehub(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    with pytest.raises(DataError, match="python -m pip install kagglehub"):
        load_competition("kaggle:competition/fer-challenge")


def test_never_within_kaggle(hub, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    with pytest.raises(DataError, match="attach it to the notebook with Add Input"):
        load_competition("kaggle:competition/fer-challenge")
    assert not hub
