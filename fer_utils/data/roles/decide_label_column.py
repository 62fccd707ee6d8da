"""Which column is the label: decided by what whole columns hold; a name only breaks ties."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass

from fer_utils.competition import DataError
from fer_utils.data.known_column_names import (
    ABOUT,
    COLUMNS,
    ROW_NUMBERS,
    SURE_LABELS,
    boxes_in,
    is_split_name,
    rank,
)
from fer_utils.data.known_expressions_and_splits import (
    SPLITS,
    are_counted,
    as_int,
    canonical,
    is_class_name,
    is_number,
    pattern,
)
from fer_utils.data.layouts.found_pictures import LABEL_FILES, Pictures
from fer_utils.data.roles.user_options import UserOptions
from fer_utils.data.roles.votes_and_hidden_labels import Labels, hidden_marks, is_hidden, vote_columns, voted

LEVEL = re.compile(r"\d+[\s._-]*[^\W\d]{2,}$")  # 0_pain, 1_pain
NUMBERED = re.compile(r"(class|label|emotion|expression|category)[\s._-]*\d+$", re.IGNORECASE)  # class_0
MOST_CLASSES = 100
LEAST_COVERAGE = 0.5  # of the images to train on, compared with the column that labels most
MOST_STRAYS = 2  # images in a folder that is no class, such as docs/
ALIKE = 0.95  # the share of labels that two columns for one thing have in common

WORDS, NAMED, PLAUSIBLE = 3, 2, 1  # how strong the evidence for a column is


@dataclass(frozen=True, eq=False)
class Candidate:
    """A column that may be the label.

    Attributes:
        is_path: whether it is made of the files' paths.
        strength: `WORDS` for expressions, `NAMED` by its name or a folder of numbers, else `PLAUSIBLE`.
        shown: the labels by row, of the rows to train on that show one.
        hidden, doubtful: words that stand for a hidden label, and those that could be a class too.
    """

    column: str
    is_path: bool
    strength: int
    shown: dict[int, str]
    hidden: set[str]
    doubtful: set[str]

    @property
    def is_sure(self) -> bool:
        """Whether its name can only be that of a label."""
        return self.column in SURE_LABELS

    @property
    def is_named(self) -> bool:
        """Whether its name is one for labels."""
        return self.column in {*COLUMNS["label"], "file name", "folder of an expression"}

    @property
    def is_numbers(self) -> bool:
        """Whether all its labels are integers."""
        return all(as_int(label) is not None for label in set(self.shown.values()))


def find_labels(
    pictures: Pictures,
    splits: Sequence[str | None],
    said: UserOptions,
    excluded: set[str],
    named: Collection[Mapping[int, str]],
) -> Labels | None:
    """The labels of the images, from the column with the strongest evidence; None if no column has any.

    Args:
        splits: [N], the split of each image; those for training and validation have to be labelled.
        excluded: columns that are something else.
        named: class names by number, from files that list them.

    Raises:
        DataError: several columns could be meant.
    """
    rows = [row for row, split in enumerate(splits) if split != "test"]
    columns = [c for c in pictures.rows.columns if said.layout in ("auto", _layout_of(pictures, c))]
    excluded = excluded | boxes_in(columns)
    evidence = Evidence(pictures, splits, rows, named, said.shown_labels())
    column = said.column("label")
    found = [evidence.candidate(c) for c in columns if c not in {*excluded, column}]
    found = [candidate for candidate in found if candidate]
    if column:
        chosen = evidence.candidate(column, forced=True)
        if chosen is None:
            cells = pictures.rows[column].dropna()
            raise DataError(
                f"columns: {column!r} holds no labels: {cells.nunique():,} different cells in "
                f"{len(cells):,} rows, such as {', '.join(map(repr, cells[:3]))}"
            )
        return _labels(pictures, chosen, [c for c in found if _same(c, chosen) == 1])
    tables = [c for c in found if not c.is_path]
    if tables:  # where a list says it, folders that are no expressions are persons or parts
        found = [c for c in found if c.strength == WORDS or c in tables or 1 in (_same(c, t) for t in tables)]
    most = max((len(candidate.shown) for candidate in found), default=0)
    found = [candidate for candidate in found if len(candidate.shown) >= LEAST_COVERAGE * most]
    names = vote_columns(pictures, rows)
    if names and not any(c.strength == WORDS or c.column in COLUMNS["label"] for c in found if not c.is_path):
        return voted(pictures, names)
    if not found:
        return None
    chosen = _strongest(found)
    return _labels(pictures, chosen, [c for c in found if c is not chosen and _same(c, chosen) >= ALIKE])


def _layout_of(pictures: Pictures, column: str) -> str:
    return pictures.layouts.get(column, pictures.layout)


@dataclass(frozen=True)
class Evidence:
    """What all columns are judged by: see `find_labels`; and words that a person named as labels."""

    pictures: Pictures
    splits: Sequence[str | None]
    rows: Sequence[int]
    named: Collection[Mapping[int, str]]
    named_labels: Set[str]

    def candidate(self, column: str, forced: bool = False) -> Candidate | None:
        """The evidence for one column; None if it cannot be the label."""
        cells = self.pictures.cells(column)
        hidden, doubtful = hidden_marks(cells, self.splits, self.named_labels)
        shown = {row: cells[row] for row in self.rows if not is_hidden(cells[row], hidden)}
        is_path = column in self.pictures.layouts
        shown = _without_strangers(shown) if is_path else shown
        counts = Counter(shown.values())
        if not 2 <= len(counts) <= MOST_CLASSES:
            return None
        strength = self._strength(column, counts, is_path, forced)
        return Candidate(column, is_path, strength, shown, hidden, doubtful) if strength else None

    def _strength(self, column: str, counts: Counter[str], is_path: bool, forced: bool) -> int:
        """How strong the evidence of these labels is; 0 if they cannot be labels."""
        n, is_named = counts.total(), column in COLUMNS["label"]
        known = sum(canonical(label) is not None for label in counts)
        codes = {as_int(label) for label in counts}
        if "predict" in column and not forced:
            return 0
        if 2 <= known >= 0.5 * len(counts) or self.pictures.layouts.get(column) == LABEL_FILES:
            return WORDS
        is_measured = None in codes and all(map(is_number, counts)) and n <= 4 * len(counts)
        if forced:
            return 0 if is_measured else NAMED
        if n < 2 * len(counts) or column in {*ROW_NUMBERS, *COLUMNS["subject"], *COLUMNS["split"], *ABOUT}:
            return 0
        if None not in codes:
            is_padded = is_path and any(len(label) > 1 and label.startswith("0") for label in counts)
            in_order = are_counted(codes)
            if not is_padded and any(codes == set(names) for names in self.named):
                return WORDS
            if is_named or (in_order and is_path and not is_padded):
                return NAMED
            return PLAUSIBLE if in_order and not is_padded else 0
        if all(map(is_number, counts)):
            return NAMED if is_named and not is_measured else 0
        if is_path and all(map(NUMBERED.match, counts)):
            return NAMED
        # part1, part2, ... or subject01, subject02; but 0_pain, 1_pain are levels
        alike = len({pattern(label) for label in counts}) == 1 and not all(map(LEVEL.match, counts))
        return 0 if is_path and alike else NAMED if is_named else PLAUSIBLE


def _without_strangers(shown: dict[int, str]) -> dict[int, str]:
    """Without folders such as docs/ that hold a figure or two."""
    counts = Counter(shown.values())
    kept = {label for label, n in counts.items() if is_class_name(label) or n > MOST_STRAYS}
    return {row: label for row, label in shown.items() if label in kept} or shown


def _same(one: Candidate, other: Candidate) -> float:
    """The share of their common rows in which two columns say the same, whatever words they use."""
    mapping, rows = _mapping(one, other), one.shown.keys() & other.shown.keys()
    if not rows or len(set(mapping.values())) < len(mapping):
        return 0.0
    return sum(mapping[one.shown[row]] == other.shown[row] for row in rows) / len(rows)


def _strongest(found: list[Candidate]) -> Candidate:
    """The candidate with the strongest evidence; columns that say the same count as one."""
    # Lists go before folders and file names.
    first, *others = sorted(
        found,
        key=lambda c: (-c.strength, c.is_path, not c.is_sure, rank("label", c.column), -len(c.shown)),
    )
    for other in others:
        is_weak = first.strength == NAMED and not first.is_sure and not first.is_path
        rivals = other.strength == first.strength or (other.is_sure and not first.is_sure) or is_weak
        named = first.is_named != other.is_named or first.is_sure != other.is_sure
        named &= first.strength != WORDS or other.is_path > first.is_path
        told_apart = other.strength == first.strength and named
        if rivals and not told_apart and max(_same(first, other), _same(other, first)) < ALIKE:
            raise DataError(
                f"the columns {first.column!r} and {other.column!r} could both be the label ("
                f"{'; '.join(f'{c.column}: {_first(set(c.shown.values()), 4)}' for c in (first, other))}). "
                f'columns="label={first.column}" or columns="label={other.column}" decides'
                + _if_split(first, other)
            )
    return first


def _if_split(*candidates: Candidate) -> str:
    """A hint for columns that may divide the data in words that nobody knows."""
    few = [c for c in candidates if len(set(c.shown.values())) <= len(SPLITS)]
    named = [c for c in few if is_split_name(c.column) or c.is_path]
    pairs = [zip(SPLITS, sorted(set(c.shown.values())), strict=False) for c in named]
    cells = [f"{split}={word}" for found in pairs for split, word in found]
    return f", or splits='{', '.join(cells)}' if that is what {named[0].column!r} says" if named else ""


def _first(texts: Collection[str], most: int) -> str:
    """The first texts in order, with "..." for the others."""
    return ", ".join([*sorted(texts)[:most], *["..."] * (len(texts) > most)])


def _labels(pictures: Pictures, chosen: Candidate, alike: list[Candidate]) -> Labels:
    """The labels of a column, with numbers or words for them from columns that say the same."""
    own = [c for c in (chosen, *alike) if not c.is_path] or [chosen]
    first = min(own, key=lambda c: rank("label", c.column)) if chosen in own or chosen.is_numbers else own[0]
    if first.doubtful:
        raise DataError(
            f"the label column {first.column!r} holds -1, which may be a class or stand for a hidden label. "
            "classes='-1=..., 0=..., 1=...' makes it a class, and splits='test=-1' the test split"
        )
    cells = pictures.cells(first.column)
    cells = ["" if cell is not None and is_hidden(cell, first.hidden) else cell for cell in cells]
    if first.is_path:  # without folders that are none
        known = set(first.shown.values())
        cells = [cell if cell in known else None for cell in cells]
    labels = Labels(first.column, cells, layout=_layout_of(pictures, first.column))
    labels.notes.append(f"labels: {_described(pictures, first)}")
    for other in (c for c in (chosen, *alike) if c is not first):
        mapping = _mapping(first, other)
        if first.is_numbers != other.is_numbers:
            pairs = mapping.items() if first.is_numbers else zip(mapping.values(), mapping, strict=True)
            labels.names = labels.names or {as_int(number): word for number, word in pairs}
            what = "classes named by" if first.is_numbers else "numbers of the classes:"
            labels.notes.append(f"{what} {_described(pictures, other)}")
        layout = _layout_of(pictures, other.column)
        if layout != labels.layout:
            labels.notes.append(f"also recognised, not used: {layout} (layout={layout!r})")
        common = first.shown.keys() & other.shown.keys()
        if n := sum(mapping.get(first.shown[row]) != other.shown[row] for row in common):
            labels.notes.append(
                f"{other.column} and {first.column} disagree on {n:,} labels: {first.column} was taken"
            )
    return labels


def _described(pictures: Pictures, candidate: Candidate) -> str:
    if candidate.is_path:
        return f"{candidate.column} ({pictures.layouts[candidate.column]})"
    tables = {pictures.parts[row] for row in candidate.shown} - {""}
    return f"column {candidate.column!r}" + (f" of {_first(tables, 3)}" if tables else "")


def _mapping(one: Candidate, other: Candidate) -> dict[str, str]:
    """The label of `other` that most rows have, by the label of `one`."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in one.shown.keys() & other.shown.keys():
        found[one.shown[row]][other.shown[row]] += 1
    return {label: counts.most_common(1)[0][0] for label, counts in found.items()}
