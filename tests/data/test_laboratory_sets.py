"""Sets from laboratories, where few persons have many images each: CK+, JAFFE, KDEF and RaFD."""

import pytest
from competitions import levels, save, write

from fer_utils.data.load import load_competition

# What data mean does not depend on the versions of packages; test_layouts.py does.
pytestmark = pytest.mark.once


def persons(competition):
    """The persons of training, and those of validation."""
    both = competition.train, competition.valid
    return [{name.split("/")[-1].split("_")[0].split(".")[0] for name in split.ids} for split in both]


def ck_plus(root):
    """Four images a sequence, of which the last has a label, but for some sequences."""
    for number in range(90):
        person, sequence = f"S{number // 3:03}", f"{number % 3 + 1:03}"
        for frame in range(1, 5):
            name = f"{person}/{sequence}/{person}_{sequence}_{frame:08}"
            save(root / f"cohn-kanade-images/{name}.png", number % 3 if frame == 4 else 3, 4 * number + frame)
        if number % 5:
            file = root / f"Emotion/{name}_emotion.txt"
            file.parent.mkdir(parents=True)
            write(file, [f"   {(1, 5, 7)[number % 3]}.0000000e+00"])


def test_the_folders_of_ck_plus(tmp_path):
    ck_plus(tmp_path)
    competition = load_competition(tmp_path)
    assert competition.class_names == ("angry", "happy", "surprise")
    assert len(competition.train) + len(competition.valid) == 72 and competition.test is None
    assert competition.train.labels.tolist() == levels(competition.train.images).tolist()
    train, valid = persons(competition)
    assert train and valid and not train & valid
    assert "CK+: 288 images without a label file were left out" in competition.summary()


@pytest.mark.parametrize("label", ["9.0000000e+00", "-1", "text", ""])
def test_a_label_of_ck_plus_that_is_none(tmp_path, label):
    ck_plus(tmp_path)
    next(tmp_path.rglob("*_emotion.txt")).write_text(label)
    competition = load_competition(tmp_path, allow_rejected=True)
    assert len(competition.train) + len(competition.valid) == 71


def test_a_split_of_the_data_that_shares_persons(tmp_path):
    for number in range(90):
        folder = f"{('train', 'val')[number % 4 == 3]}/{('angry', 'happy', 'sad')[number // 4 % 3]}"
        save(tmp_path / folder / f"S{number // 4:03}_001_{number:08}.png", number // 4 % 3, number)
    said = "22 of the 22 persons or photographs to validate on are trained on too"
    assert said in load_competition(tmp_path).summary()
    pooled = load_competition(tmp_path, pool_valid=True)
    train, valid = persons(pooled)
    assert train and valid and not train & valid and said not in pooled.summary()


NAMES = {
    "CK+48": "{word}/S{p:03}_{q:03}_{r:08}.png",
    "JAFFE": "{x}{y}.{code}{r}.{n}.tiff",
    "KDEF": "{ab}F{p:02}/{ab}F{p:02}{code}S.JPG",
    "RaFD": "Rafd{r:03}_{p:02}_Caucasian_female_{word}_frontal.jpg",
}


@pytest.mark.parametrize("name", NAMES)
def test_no_person_is_trained_and_validated(tmp_path, name):
    n = 0
    for p in range(12):
        for level, (code, word) in enumerate((("AN", "angry"), ("HA", "happy"), ("SU", "surprise"))):
            for r in (1, 2):
                n += 1
                said = dict(p=p, q=level, r=r, n=n, code=code, word=word, ab=" AB"[r], x=chr(65 + p), y="K")
                save(tmp_path / NAMES[name].format(**said), level, n)
    competition = load_competition(tmp_path)
    assert competition.train.labels.tolist() == levels(competition.train.images).tolist()
    ids = [sorted(split.ids) for split in (competition.train, competition.valid)]
    places = {"CK+48": slice(0, 4), "JAFFE": slice(0, 2), "KDEF": slice(1, 4), "RaFD": slice(8, 10)}
    train, valid = ({i.split("/")[-1][places[name]] for i in found} for found in ids)
    assert train and valid and not train & valid
    assert "persons: column 'subject' keeps" in competition.summary()


def test_both_versions_of_raf_db(tmp_path):
    """Its list names the original images; the aligned ones beside them are the same faces."""
    rows = []
    for split, n in (("train", 49), ("test", 21)):
        for k in range(n):
            save(tmp_path / f"Image/original/{split}_{k:05}.jpg", k % 7, k)
            save(tmp_path / f"Image/aligned/{split}_{k:05}_aligned.jpg", k % 7, 500 + k)
            rows.append(f"{split}_{k:05}.jpg {k % 7 + 1}")
    (tmp_path / "EmoLabel").mkdir()
    write(tmp_path / "EmoLabel/list_patition_label.txt", rows)
    competition = load_competition(tmp_path)
    assert len(competition.train) + len(competition.valid) == 49 and len(competition.test) == 21
    names = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
    said = [competition.class_names[label] for label in competition.train.labels]
    assert said == [names[level] for level in levels(competition.train.images)]
