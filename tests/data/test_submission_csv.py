"""A submission is in the competition's own form, and nothing wrong passes for one."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from competitions import COMPETITIONS, NUMBERS, fer2013_csv, write

from fer_utils.competition import FER_CLASSES, DataError, SubmissionFormat
from fer_utils.data.load import load_competition
from fer_utils.data.roles.class_names import FER as FER_FORM
from fer_utils.data.roles.class_names import RAF, Coding, find_coding
from fer_utils.data.submission_csv import (
    default_format,
    read_format,
    validate_submission,
    write_submission,
)
from fer_utils.data.tables import open_table

FER = Coding(FER_CLASSES, tuple(range(7)), tuple(range(7)), FER_CLASSES)
WORDS = Coding(("happy", "sad"), ("Happiness", "Sadness"), words=("Happiness", "Sadness"))


@pytest.fixture
def competition(tmp_path):
    COMPETITIONS["train_with_usage"](tmp_path / "data")
    return load_competition(tmp_path / "data")


@pytest.fixture
def written(competition, tmp_path):
    return write_submission(competition, np.eye(7), tmp_path / "out" / "submission.csv")


def test_round_trip(competition, written):
    rows = [line.split(",") for line in written.read_text().splitlines()]
    assert rows == [["id", "emotion"], *([str(k), str(k)] for k in range(7))]
    assert [path.name for path in written.parent.iterdir()] == ["submission.csv"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda lines: lines[:-1], "6 predictions, the form wants 7"),
        (lambda lines: [*lines, "7,1"], "8 predictions, the form wants 7"),
        (lambda lines: [*lines[:2], lines[1], *lines[3:]], r"row 3: id '0' \(it appears twice\)"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "row 2: id '1', the form wants '0'"),
        (lambda lines: [*lines[:3], "2,7", *lines[4:]], "row 4: label '7' is none of 0, 1, 2"),
        (lambda lines: [*lines[:3], "2,", *lines[4:]], "row 4: label '' is none of"),
        (lambda lines: [*lines[:3], "2,2.0", *lines[4:]], "row 4: label '2.0' is none of"),
        (lambda lines: ["Id,emotion", *lines[1:]], "row 1: found .*Id"),
        (lambda lines: lines[1:], "row 1: found"),
        (lambda lines: [line + ",0" for line in lines], "row 1: found"),
        (lambda lines: [line.replace(",", ";") for line in lines], "row 1: found"),
        (lambda lines: [*lines[:3], "", *lines[3:]], "row 4: id ''"),
        (lambda lines: [*lines[:3], "2,2,2", *lines[4:]], "cannot be read"),
        (lambda lines: [], "cannot be read"),
    ],
)
def test_what_is_wrong_is_told_by_row(competition, written, change, message):
    written.write_text("\n".join(change(written.read_text().splitlines())))
    with pytest.raises(DataError, match=f"submission.csv.*{message}"):
        validate_submission(competition, written)


@pytest.mark.parametrize(
    "cells, message",
    [
        ("0.95,0.1", "the probabilities sum to 1.0500, not to 1"),
        ("1.2,-0.2", "a probability is negative or not a number"),
        ("x,1", "a probability is negative or not a number"),
    ],
)
def test_wrong_probabilities_are_told_by_row(competition, tmp_path, cells, message):
    template = pd.DataFrame({"id": ["a", "b"], "happy": "0", "sad": "0"})
    form = SubmissionFormat(template, "sad", np.arange(2), (), probability_columns=("happy", "sad"))
    write(tmp_path / "answers.csv", ["id,happy,sad", "a,0.3,0.7", f"b,{cells}"])
    with pytest.raises(DataError, match=f"answers.csv row 3: {message}"):
        validate_submission(dataclasses.replace(competition, submission=form), tmp_path / "answers.csv")


def test_a_missing_submission(competition, tmp_path):
    with pytest.raises(DataError, match="nowhere.csv cannot be read"):
        validate_submission(competition, tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    "probs, message",
    [
        (np.eye(7)[:6], r"probs must be \(7, 7\)"),
        (np.arange(7), r"probs must be \(7, 7\)"),
        (np.where(np.eye(7) == 1, np.nan, 0), "test image 0 are not finite"),
        (np.eye(7) * np.r_[1, 1, 1.1, 1, 1, 1, 1], "test image 2 sum to 1.1000 instead of 1"),
    ],
)
def test_wrong_probs_write_nothing(competition, tmp_path, probs, message):
    with pytest.raises(DataError, match=message):
        write_submission(competition, probs, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_without_a_test_split(tmp_path):
    COMPETITIONS["muxspace"](tmp_path)
    competition = load_competition(tmp_path)
    with pytest.raises(DataError, match="has no test split, so there is nothing to submit"):
        write_submission(competition, np.eye(4), tmp_path / "out.csv")


def test_half_precision_probs_are_good_enough(competition, tmp_path):
    probs = np.full((7, 7), 1 / 7, np.float16)
    write_submission(competition, probs, tmp_path / "out.csv")


# ---------------------------------------------------------------- the sample's form


def form_of(tmp_path, lines, ids=("0", "1", "2"), coding=FER):
    write(tmp_path / "sample_submission.csv", lines)
    return read_format(open_table(tmp_path / "sample_submission.csv"), {"id": list(ids)}, coding, by_row=True)


def test_ids_are_matched_however_they_are_written(tmp_path):
    ids = ["0001.png", "0002.png", "0010.png"]
    for wanted in (
        ["10", "2", "1"],
        ["0010", "0002", "0001"],
        ["test/0010.png", "test/0002.png", "test/0001.png"],
    ):
        form = form_of(tmp_path, ["id,emotion", *(f"{id_},0" for id_ in wanted)], ids)
        assert form.rows.tolist() == [2, 1, 0] and form.template["id"].tolist() == wanted


def test_ids_that_differ_only_in_case(tmp_path):
    form = form_of(tmp_path, ["id,emotion", "a,0", "A,0"], ["A", "a"])
    assert form.rows.tolist() == [1, 0]


def test_lines_counted_from_one(tmp_path):
    assert form_of(tmp_path, ["id,emotion", "1,0", "2,0", "3,0"]).rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "lines, kept",
    [
        (["id,emotion,Usage", "0,0,Public", "1,0,Private", "2,0,Public"], "; Usage stays as in the sample"),
        ([",id,emotion", "a,0,0", "b,1,0", "c,2,0"], ""),
        (["id,Angry,Disgust,Fear,Happy,Sad,Surprise,Neutral", *(f"{k},{'0,' * 6}0" for k in range(3))], ""),
    ],
)
def test_further_columns_of_the_sample_are_kept_and_told(tmp_path, lines, kept):
    form = form_of(tmp_path, lines)
    assert form.ids_from == f"equal to the column 'id'{kept}"
    assert form.template.iloc[:, -1].tolist() == [line.split(",")[-1] for line in lines[1:]]


@pytest.mark.parametrize(
    "lines, message",
    [
        (["id,emotion", "0,0", "x,0"], "row 3 asks for id 'x', which no test image has"),
        (["id,emotion", "0,0", "1,0", "0,0"], "row 4: id '0' appears twice"),
        (["0", "0"], "2 lines without ids, but there are 3 test images"),
        ([], "is empty"),
        (["id,emotion,emotion", "0,0,0"], "two columns have one name"),
        (["id,emotion", "0,0.5", "1,0.5"], "holds '0.5' .*it may want the probability of one class"),
    ],
)
def test_a_sample_that_does_not_fit(tmp_path, lines, message):
    with pytest.raises(DataError, match=f"sample_submission.csv.*{message}"):
        form_of(tmp_path, lines)


def test_numbers_that_no_shift_explains_are_refused(tmp_path):
    with pytest.raises(DataError, match="the sample holds 0, 1, 7, but the classes have the numbers 0, 1, 2"):
        form_of(tmp_path, ["id,emotion", "0,0", "1,7", "2,1"])


def test_a_sample_that_asks_for_some_of_the_images(tmp_path):
    COMPETITIONS["train_with_usage"](tmp_path)
    write(tmp_path / "sample_submission.csv", ["id,emotion", "5,0", "2,0"])
    competition = load_competition(tmp_path)
    assert any("asks for 2 of the 7 test images" in note for note in competition.notes)
    path = write_submission(competition, np.eye(7), tmp_path / "out.csv")
    assert path.read_text() == "id,emotion\n5,5\n2,2\n"
    validate_submission(competition, path)


@pytest.mark.parametrize(
    "cells, coding, values",
    [
        (["0", "3", "6"], FER, "0 1 2 3 4 5 6"),
        (["1", "4", "7"], FER, "1 2 3 4 5 6 7"),
        (["", "", ""], FER, "0 1 2 3 4 5 6"),
        (["-1", "-1", "-1"], FER, "0 1 2 3 4 5 6"),
        (["Happy", "Sad", "Sad"], FER, "Angry Disgust Fear Happy Sad Surprise Neutral"),
        (["HAPPINESS", "ANGER", "SAD"], FER, "ANGER DISGUST FEAR HAPPINESS SAD SURPRISE NEUTRAL"),
        (["Sadness", "Sadness", "Sadness"], WORDS, "Happiness Sadness"),
        (["sadness", "sadness", "sadness"], WORDS, "happiness sadness"),
        (["?", "?", "?"], WORDS, "Happiness Sadness"),
        (["0", "0", "0"], Coding(("class 1", "class 2"), (1, 2), (1, 2)), "1 2"),
    ],
)
def test_labels_are_written_as_in_the_sample(tmp_path, cells, coding, values):
    lines = ["id,emotion", *(f"{row},{cell}" for row, cell in enumerate(cells))]
    assert form_of(tmp_path, lines, coding=coding).label_values == tuple(values.split())


@pytest.mark.parametrize(
    "lines, answers",
    [
        ([",id,emotion", "a,0,0", "b,1,0", "c,2,0"], ",id,emotion\na,0,0\nb,1,1\nc,2,2\n"),
        (["emotion,id", "0,2", "0,0", "0,1"], "emotion,id\n2,2\n0,0\n1,1\n"),
        (["id;emotion", "0;0", "1;0", "2;0"], "id;emotion\n0;0\n1;1\n2;2\n"),
        (["id\temotion", "0\t0", "1\t0", "2\t0"], "id\temotion\n0\t0\n1\t1\n2\t2\n"),
        (["2,0", "1,0", "0,0"], "2,2\n1,1\n0,0\n"),
        (["0", "0", "0"], "0\n1\n2\n"),
        (["Id, Label", "0, 0", "1, 0", "2, 0"], "Id, Label\n0,0\n1,1\n2,2\n"),
        (["id,emotion", '"0",0', '"1",0', '"2",0'], "id,emotion\n0,0\n1,1\n2,2\n"),
    ],
)
def test_the_form_of_the_file_is_the_samples(tmp_path, lines, answers):
    COMPETITIONS["ntu_spring"](tmp_path)
    table = tmp_path / "test.csv"
    write(table, table.read_text().splitlines()[:4])
    write(tmp_path / "sample_submission.csv", lines)
    competition = load_competition(tmp_path)
    path = write_submission(competition, np.eye(7)[:3], tmp_path / "out.csv")
    assert path.read_bytes().decode() == answers


def test_the_sample_leads_over_a_submission_of_ones_own(tmp_path):
    COMPETITIONS["train_with_usage"](tmp_path)
    write(tmp_path / "my_submission.csv", ["a,b", "1,2"])
    assert load_competition(tmp_path).submission.source == "sample_submission.csv"


def test_default_format():
    form = default_format(["b", "a"], (1, 2))
    assert form.template.columns.tolist() == ["id", "label"] and form.template["id"].tolist() == ["b", "a"]
    assert form.label_values == ("1", "2") and form.rows.tolist() == [0, 1] and form.source == "default"


def test_a_sample_without_test_images_is_told(tmp_path):
    fer2013_csv(tmp_path)
    table = tmp_path / "fer2013" / "fer2013.csv"
    write(table, [line for line in table.read_text().splitlines() if "PrivateTest" not in line])
    write(tmp_path / "sample_submission.csv", ["id,emotion", "0,0"])
    assert "sample_submission.csv ignored: there are no test images" in load_competition(tmp_path).notes


# ---------------------------------------------------------------- what labels mean


@pytest.mark.parametrize(
    "labels, names, values",
    [
        ("0 1 2 3 4 5 6", NUMBERS, tuple(range(7))),
        ("0.0 1.0 2.0", ("class 0", "class 1", "class 2"), (0, 1, 2)),
        ("1 2 3", ("class 1", "class 2", "class 3"), (1, 2, 3)),
        ("sad HAPPY Sad happy Sad", ("happy", "sad"), ("HAPPY", "Sad")),
        ("joy happy", ("happy", "joy"), ("happy", "joy")),
        ("10_zeal 2_awe", ("awe", "zeal"), ("2_awe", "10_zeal")),
        ("0_neutral 1_happy", ("happy", "neutral"), ("1_happy", "0_neutral")),
        ("contempt anger", ("angry", "contempt"), ("anger", "contempt")),
    ],
)
def test_find_coding(labels, names, values):
    coding = find_coding(labels.split())
    assert coding.class_names == names and coding.label_values == values
    assert [coding.index(str(value)) for value in values] == list(range(len(values)))


def test_numbers_have_names_only_in_a_form_of_their_own():
    for labels, form, first in (("1234567", RAF, "surprise"), ("0123456", FER_FORM, "angry")):
        assert find_coding(list(labels)).class_names[0] == f"class {labels[0]}"
        coding = find_coding(list(labels), form=form)
        assert coding.class_names == FER_CLASSES and coding.class_names[coding.index(labels[0])] == first
        assert form in coding.note


def test_numbers_for_words_are_refused_unless_something_says_them(tmp_path):
    lines = ["id,emotion", "0,0", "1,1", "2,1"]
    with pytest.raises(DataError, match="classes='word for 0, word for 1, ...' says it"):
        form_of(tmp_path, lines, coding=WORDS)
    numbered = find_coding(["Sadness", "Happiness"], names={0: "sad", 1: "happy"})
    assert form_of(tmp_path, lines, coding=numbered).label_values == ("1", "0")
