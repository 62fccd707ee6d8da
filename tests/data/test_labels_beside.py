"""Labels in a table of their own, beside a table of images."""

import numpy as np
import pytest
from competitions import face, levels, pixels, write

from fer_utils.competition import DataError
from fer_utils.data.load import load_competition

# What data mean does not depend on the versions of packages; test_layouts.py does.
pytestmark = pytest.mark.once

WORDS = ("fear", "happy", "sad")  # as sorted, so that a label is the level of its image
N = 72
ORDER = np.random.default_rng(0).permutation(N).tolist()


def images(root, name, head="pixels", key=""):
    """A table of images, whose levels are their numbers modulo 3."""
    rows = (key.format(k) + pixels(k % 3, k) for k in range(N))
    write(root / name, [head, *rows])


def labels_fit(root):
    train = load_competition(root).train
    assert len(train) > 50
    return train.labels.tolist() == levels(train.images).tolist()


@pytest.mark.parametrize(
    ("head", "row"),
    [
        (["emotion"], "{word}"),
        ([], "{level}"),
        (["", "emotion"], "{k},{word}"),
        (["fear", "happy", "sad"], "{dummies}"),
    ],
)
def test_labels_row_by_row(tmp_path, head, row):
    images(tmp_path, "X_train.csv")
    dummies = [",".join(str(int(level == c)) for c in range(3)) for level in range(3)]
    rows = (row.format(k=k, word=WORDS[k % 3], level=k % 3, dummies=dummies[k % 3]) for k in range(N))
    write(tmp_path / "y_train.csv", [*([",".join(head)] if head else []), *rows])
    assert labels_fit(tmp_path)
    assert "labels of X_train.csv from y_train.csv, row by row" in load_competition(tmp_path).summary()


def test_a_column_for_each_pixel_and_no_headers(tmp_path):
    grey = np.stack([face(k % 3, k).ravel() for k in range(N)])
    np.savetxt(tmp_path / "train_x.csv", grey, fmt="%d", delimiter=",")
    np.savetxt(tmp_path / "train_y.csv", np.arange(N) % 3, fmt="%d")
    assert labels_fit(tmp_path)


def test_keys_under_two_names_in_two_orders(tmp_path):
    images(tmp_path, "faces.csv", "face,pixels", "f{:03},")
    write(tmp_path / "labels.csv", ["id,label", *(f"f{k:03},{WORDS[k % 3]}" for k in ORDER)])
    assert labels_fit(tmp_path)


def test_row_numbers_under_two_names_in_two_orders_prove_nothing(tmp_path):
    images(tmp_path, "faces.csv", "face,pixels", "{},")
    write(tmp_path / "labels.csv", ["id,label", *(f"{k},{WORDS[k % 3]}" for k in ORDER)])
    with pytest.raises(DataError, match="no known layout"):
        load_competition(tmp_path)


def test_a_label_is_missing(tmp_path):
    images(tmp_path, "X_train.csv")
    write(tmp_path / "y_train.csv", ["emotion", *(WORDS[k % 3] for k in range(N - 1))])
    with pytest.raises(DataError, match="y_train.csv has 71 labels, and X_train.csv 72 images"):
        load_competition(tmp_path)


@pytest.mark.parametrize("n", [3, N])
def test_beside_a_test_a_table_whose_name_says_no_split_is_not_its_labels(tmp_path, n):
    images(tmp_path, "X_train.csv")
    images(tmp_path, "X_test.csv")
    write(tmp_path / "y_train.csv", ["emotion", *(WORDS[k % 3] for k in range(N))])
    write(tmp_path / "labels.csv", ["label", *(WORDS[(k + 1) % 3] for k in range(n))])
    assert load_competition(tmp_path).test.labels is None


def test_the_line_for_excel(tmp_path):
    write(tmp_path / "train.csv", ["sep=;", "emotion;pixels", *(f"sad;{pixels(2, k)}" for k in range(9))])
    with pytest.raises(DataError, match="train.csv begins with the line 'sep=;', which is for Excel"):
        load_competition(tmp_path)
