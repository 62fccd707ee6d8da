"""Label fixes: read strictly, applied to training images alone."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fer_utils import Config, load_competition
from fer_utils.competition import DataError
from fer_utils.data import load as data
from fer_utils.data.corrections import apply_fixes


def write(path, *rows, columns=("id", "given", "label")):
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


def test_fixes_change_the_named_labels_and_nothing_else(tiny, tmp_path):
    path = write(tmp_path / "f.csv", ("1", "happy", "sad"), ("2", "sad", "sad"), ("3", "neutral", "drop"))
    train, note = apply_fixes(tiny, path)
    assert "1 labels changed, 1 images left out" in note
    kept = np.delete(np.arange(60), 3)
    assert train.ids.tolist() == tiny.train.ids[kept].tolist()
    assert (train.images == tiny.train.images[kept]).all()
    expected = tiny.train.labels[kept].copy()
    expected[1] = 2
    assert train.labels.tolist() == expected.tolist()
    assert tiny.train.labels[1] == 1  # the competition itself stays as it was


def test_votes_follow_the_new_label(tiny, tmp_path):
    votes = np.ones((60, 4), np.float32)
    voted = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, votes=votes))
    train, _ = apply_fixes(voted, write(tmp_path / "f.csv", ("1", "happy", "sad")))
    assert train.votes[1].tolist() == [0, 0, 4, 0]
    assert train.votes[0].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("1", "happy", "sad"), ("99", "sad", "happy")], "row 3: no training image has the id '99'"),
        ([("1", "happy", "joyful")], "row 2: unknown label 'joyful'; known are angry"),
        ([("1", "sad", "happy")], "row 2: the label of '1' is 'happy' and not 'sad'"),
        (
            [("1", "happy", "sad"), ("2", "sad", "sad"), ("1", "happy", "sad")],
            "row 4: '1' appears twice",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_named(tiny, tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        apply_fixes(tiny, write(tmp_path / "f.csv", *rows))


def test_files_that_are_no_fixes_are_refused(tiny, tmp_path):
    with pytest.raises(DataError, match="lacks the column label"):
        apply_fixes(tiny, write(tmp_path / "f.csv", ("1", "happy"), columns=("id", "given")))
    with pytest.raises(DataError, match="missing.csv"):
        apply_fixes(tiny, tmp_path / "missing.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="empty.csv"):
        apply_fixes(tiny, tmp_path / "empty.csv")


def test_an_id_that_names_two_images_is_refused(tiny, tmp_path):
    ids = tiny.train.ids.copy()
    ids[5] = "1"
    doubled = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, ids=ids))
    with pytest.raises(DataError, match="names 2 training images"):
        apply_fixes(doubled, write(tmp_path / "f.csv", ("1", "happy", "sad")))


def test_a_competition_is_read_with_its_fixes(tiny_folder, tmp_path):
    """Also where the validation split, made here, takes some of the named images."""
    plain = load_competition(tiny_folder, image_size=20)
    rows = [(id_, plain.class_names[k], plain.class_names[1]) for id_, k in zip(*_all(plain), strict=True)]
    path = write(tmp_path / "all.csv", *rows)
    config = Config(data=str(tiny_folder), image_size=20, label_fixes=str(path))
    fixed = load_competition(config.data, **config.data_options)
    assert set(fixed.train.labels) == {1}
    assert (fixed.valid.labels == plain.valid.labels).all()
    assert fixed.fingerprint != plain.fingerprint
    assert any(f"{len(plain.valid)} skipped that are not in train now" in note for note in fixed.notes)


def test_fixes_of_a_pooled_run_skip_what_is_validation_now(tiny, tmp_path):
    path = tmp_path / "fixes.csv"
    names = tiny.class_names
    path.write_text(f"id,given,label\nvalid/{tiny.valid.ids[0]},{names[tiny.valid.labels[0]]},{names[0]}\n")
    fixed, note = apply_fixes(tiny, path)
    assert fixed.labels.tolist() == tiny.train.labels.tolist() and "1 skipped" in note


def _all(competition):
    splits = (competition.train, competition.valid)
    return np.concatenate([s.ids for s in splits]), np.concatenate([s.labels for s in splits])


def test_what_cleaning_left_out_is_skipped_and_what_it_kept_is_fixed(tiny, tmp_path):
    """Exact copies with one label: clean keeps the first; a fix of either is no conflict between them."""
    train = dataclasses.replace(tiny.train, images=tiny.train.images[np.r_[0, 1, 2, 3, 0, 5:60]])
    doubled = dataclasses.replace(tiny, train=train)  # 4 is a copy of 0, both angry
    path = write(tmp_path / "f.csv", ("0", "angry", "sad"), ("4", "angry", "sad"))
    cleaned = data._corrected(doubled, path, clean=True)
    assert len(cleaned.train) == 59 and cleaned.train.labels[0] == 2
    assert any("1 labels changed, 0 images left out, 1 skipped" in note for note in cleaned.notes)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffid;given;label\r\n1;happy;sad\r\n",  # a German Excel
        "Id, Given, Label\n1, Happy , SAD\n",
        "id,given,label,suggested\n\n1,happy,sad,sad\n,,,\n",
        "id\tgiven\tlabel\n1\tjoy\tsadness\n",
        'id,given,label\n"1","happy","sad"\n',
    ],
)
def test_files_are_read_as_spreadsheets_write_them(tiny, tmp_path, text):
    path = tmp_path / "f.csv"
    path.write_text(text, encoding="utf-8")
    train, _ = apply_fixes(tiny, path)
    assert train.labels[1] == 2 and (np.delete(train.labels, 1) == np.delete(tiny.train.labels, 1)).all()


def test_lines_are_counted_as_an_editor_does(tiny, tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("id,given,label\n\n\n99,happy,sad\n")
    with pytest.raises(DataError, match="row 4: no training image"):
        apply_fixes(tiny, path)
    path.write_text("id,given,label\n1,happy,sad\n2,sad,happy,a note\n")
    with pytest.raises(DataError, match="line 3"):
        apply_fixes(tiny, path)


def test_lost_zeros_are_told(tiny, tmp_path):
    padded = dataclasses.replace(tiny.train, ids=np.array([f"{k:05d}" for k in range(60)]))
    with pytest.raises(DataError, match="there is '00012': spreadsheets drop leading zeros"):
        apply_fixes(
            dataclasses.replace(tiny, train=padded), write(tmp_path / "f.csv", ("12", "angry", "sad"))
        )
