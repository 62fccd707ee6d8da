"""What words in the data mean: an expression, a split, a number, an image's file."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from fer_utils.data.decode_images import IMAGE_SUFFIXES
from fer_utils.data.known_column_names import is_split_name

ALIASES = {
    "angry": "angry anger",
    "disgust": "disgust disgusted digust",
    "fear": "fear fearful scared afraid",
    "happy": "happy happiness joy",
    "sad": "sad sadness",
    "surprise": "surprise surprised suprise suprised",
    "neutral": "neutral neutrality normal calm",
    "contempt": "contempt contemptuous",
    "uncertain": "uncertain unknown nf",
}
CANONICAL = {word: name for name, words in ALIASES.items() for word in words.split()}

# RAF-DB counts from 1, in an order of its own (Li, Deng and Du 2017).
RAF_CLASSES = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")

SPLITS = ("train", "valid", "test")
# In this order: PublicTest is a validation split although its name ends in test. The other words are Spanish,
# Portuguese, French, Italian, German, Turkish, Indonesian, Russian, Chinese, Japanese and Korean, without
# accents.
SPLIT_WORDS = {
    "train": re.compile(
        "train|trn?$|entren|entrain|trein|addestr|egitim|latih|обуч|трениров|训练|訓練|学習|學習|훈련|학습"
    ),
    "valid": re.compile(
        "val$|valid|public|dev$|develop|eval|va$|vl$|convalid|dogrul|валид|провер|验证|驗證|検証|검증"
    ),
    "test": re.compile(
        "test|private|holdout|te$|tst$|prueba|prova$|pruf|uji$|тест|测试|測試|テスト|테스트|시험|평가"
    ),
}
YES, NO = {"1", "1.0", "true", "yes", "y", "t", "x"}, {"0", "0.0", "-1", "false", "no", "n", "f"}
# public_figure, evaluator_1, is_face_valid; but is_valid (fastai) divides the data.
_QUALITY = re.compile(r"(^|[^a-z])(valid|validated|public|private|evaluat(or|ed))([^a-z]|$)")
_DIVIDES = re.compile(r"(is|in|for)[ _]?valid|((is|in|for)[ _]?)?valid[ _](set|split|data)")
# The whole name of a column of yes and no that divides the data.
_FLAG = re.compile(
    r"((is|in|for|used for|split|set|use)[ _]?)?((train|training|trn)|(val|valid|validation|dev)|"
    r"(test|testing|tst|h[eo]ld[ _]?out|with[ _]?held))([ _]?(set|split|data|flag))?"
)
# The name of a table that holds somebody's predictions.
PREDICTED = re.compile(
    r"(^|[\W_])(pred|preds|predict\w*|outputs?|results?|oof|solution|submit|sub)([\W_\d]|$)"
)
# What stands in a label's place where the label is hidden; and what may also be a class (polarity -1, 0, 1).
HIDDEN = {"", "?", "-", "hidden", "tbd", "to be predicted", "pending", "unlabeled", "unlabelled"}
EMPTY = {"nan", "null", "n/a", "na"}  # as programs write an empty cell
MAYBE_HIDDEN = {"-1", "none", *EMPTY}
MOST_SPLITS = 12  # different words in a column of splits
STRAY_SHARE = 0.01


@lru_cache(maxsize=4096)
def split_of(name: str) -> str | None:
    """The split that a file, folder or cell names: train, valid, test or None."""
    plain = without_accents(name)
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[^\W\d_a-zA-Z]+", plain)]
    return next((split for split, word in SPLIT_WORDS.items() if any(map(word.match, words))), None)


def split_words(names: Iterable[str], column: str = "", is_sure: bool = False) -> dict[str, str | None]:
    """The split that each cell of a column means, seen together: of dev and eval, eval is the test; yes and
    no in a column is_test, or in one such as valid, if that `is_sure` to divide the data."""
    words, named = {name: split_of(name) for name in names}, flag_split(column) or split_of(column)
    if named and (is_sure or not may_be_quality(column)) and are_flags(words):
        other = "train" if named != "train" else "test"
        return {name: named if is_yes(name) else other for name in words}
    valid = [name for name, split in words.items() if split == "valid"]
    if len(valid) > 1 and "test" not in words.values():
        words |= {name: "test" for name in valid if name.strip().lower().startswith("eval")}
    return words


def is_yes(cell: str) -> bool:
    """Whether a cell of a column such as is_test says yes."""
    return cell.lower() in YES


def are_flags(cells: Collection[str]) -> bool:
    """Whether cells say yes and no; an empty one beside yes says no."""
    words = {cell.lower() for cell in cells}
    return bool(words & YES) and words <= YES | NO | {""}


def flag_split(column: str) -> str | None:
    """The split that the whole name of a column of yes and no says, such as is_test or istest."""
    if match := _FLAG.fullmatch(re.sub(r"[\W_]+", " ", column).strip()):
        return SPLITS[next(k for k, word in enumerate(match.groups()[3:6]) if word)]
    return None


def may_be_quality(column: str) -> bool:
    """Whether yes in a column of this name may divide the data, or say that a face is good or private."""
    return bool(_QUALITY.search(column)) and not _DIVIDES.fullmatch(column)


def column_splits(column: str, cells: Iterable[str | None], is_sure: bool = False) -> dict[str, str | None]:
    """The split that each cell of a column means (`split_words`); nothing if it is no column of splits."""
    cells = {cell for cell in cells if cell is not None}
    values = cells - {""}
    if flag_split(column) and are_flags(cells):
        values = cells
    words = split_words(values, column, is_sure) if 1 <= len(values) <= MOST_SPLITS else {}
    known = [word for word in words.values() if word]
    evidence = (len(known) == len(words), "train" in known, is_split_name(column))
    return words if known and sum(evidence) >= 2 else {}


def without_accents(text: str) -> str:
    """A text with its letters alone: validacion for validación."""
    letters = unicodedata.normalize("NFKD", text.replace("ı", "i"))
    return unicodedata.normalize("NFC", "".join(c for c in letters if not "\u0300" <= c <= "\u036f"))


def as_int(text: str) -> int | None:
    """The integer in a cell (3, 03, 3.0); None for any other text."""
    match = re.fullmatch(r"\s*(-?\d{1,9})(\.0*)?\s*", text)
    return int(match[1]) if match else None


def are_counted(numbers: Collection[int | None]) -> bool:
    """Whether numbers are 0, 1, 2, ... or 1, 2, 3, ..., in any order."""
    n = len(numbers)
    return set(numbers) in (set(range(n)), set(range(1, n + 1)))


def as_pairs(text: str) -> list[tuple[str, str]]:
    """The pairs in "label=mood, image=file", as a person writes them; "" for what is missing."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    return [(key.strip(), value.strip()) for key, _, value in pairs]


def without_number(label: str) -> str:
    """A label in lower case without a number before it: happy for 3_Happy; 3 for 3."""
    text = unicodedata.normalize("NFC", label.strip().lower())
    word = re.sub(r"^\d+[\s._-]*", "", text)
    return word if re.search(r"[^\W\d]", word) else text


@lru_cache(maxsize=4096)
def canonical(label: str) -> str | None:
    """The expression that a word stands for: happy for Happiness, 3_happy or 03 JOY; None if unknown."""
    return CANONICAL.get(without_number(label))


def is_class_name(name: str) -> bool:
    """Whether a folder name means one class: a known word or an integer."""
    return canonical(name) is not None or re.fullmatch(r"\d{1,2}", name) is not None


def pattern(text: str) -> str:
    """A text with its numbers replaced: S#_pain for S014_pain."""
    return re.sub(r"\d+", "#", text)


def vote_label(votes: Sequence[float], names: Sequence[str]) -> str:
    """The name with the most votes; "" for a tie, no votes, or if no face or unknown leads. FER+ (Barsoum et
    al. 2016) also leaves out images on which half of the votes or fewer agree, single ones not counted."""
    most = max(votes, default=0)
    leaders = [name for name, count in zip(names, votes, strict=True) if count == most]
    return leaders[0] if most > 0 and len(leaders) == 1 and canonical(leaders[0]) != "uncertain" else ""


def is_image_name(cell: str) -> bool:
    """Whether a cell ends as the name of an image's file does."""
    return cell.lower().endswith(IMAGE_SUFFIXES)


def normal(name: object) -> str:
    """A column's name as it is compared."""
    return str(name).strip().lower()


def is_number(cell: str | None) -> bool:
    """Whether a cell is a finite number, or empty or None."""
    try:
        return math.isfinite(float(cell or 0))
    except ValueError:
        return False
