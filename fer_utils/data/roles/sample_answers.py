"""What a sample submission has for each class: a word or a number."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from fer_utils.competition import DataError
from fer_utils.data.known_expressions_and_splits import (
    HIDDEN,
    MAYBE_HIDDEN,
    as_int,
    canonical,
    is_number,
    pattern,
)
from fer_utils.data.roles.class_names import Coding
from fer_utils.data.tables import Table


def answers_by_class(table: Table, cells: pd.Series, coding: Coding) -> tuple[str, ...]:
    """The text to write for each class: the training labels' own, or as the sample's cells show.

    Raises:
        DataError: the sample holds numbers, and which class has which is not known.
    """
    own = tuple(map(str, coding.label_values))
    seen = {cell.strip() for cell in cells} - {""}
    if not seen or seen <= set(own):
        return own
    if all(as_int(cell) is not None for cell in seen):
        if not coding.numbers:
            raise DataError(
                f"{table.path.name} wants numbers for the classes {', '.join(coding.class_names)}, and "
                "nothing says which class has which number. classes='word for 0, word for 1, ...' says it, "
                "in the order of the numbers from 0 (or '1=..., 2=...')"
            )
        return _numbers(set(map(as_int, seen)), coding.numbers)
    if any(is_number(cell) and as_int(cell) is None for cell in seen):
        raise DataError(
            f"{table.path.name} holds {min(seen)!r} in its column of answers, which is not a class: it may "
            "want the probability of one class, and nothing says of which. Give it a column for each class, "
            "named for it, or move it away and write that column yourself (test.npz has the probabilities)"
        )
    if not coding.words:
        if {cell.lower() for cell in seen} <= HIDDEN | MAYBE_HIDDEN:
            return own
        raise DataError(
            f"{table.path.name} wants words for the classes {', '.join(coding.class_names)}, and nothing "
            f"says which class has which. classes='{', '.join(sorted(seen))}, ...' says it, in the order of "
            "the numbers"
        )
    by_class = {coding.index(cell): cell for cell in sorted(seen, reverse=True)}
    # Other expressions, or class1 and class2, stand there for an example.
    unknown = sorted(c for c in seen if coding.index(c) < 0 and c.lower() not in HIDDEN | MAYBE_HIDDEN)
    is_counted = len({*map(pattern, unknown)}) == 1 and "#" in pattern(unknown[0])
    if len(unknown) > 1 and not (is_counted or all(map(canonical, unknown))):
        raise DataError(
            f"{table.path.name} answers {', '.join(map(repr, unknown[:3]))}, which are none of the classes "
            f"({', '.join(coding.class_names)}): write the words of the labels there (and the words that "
            "are wanted into the finished submission), or move the sample out of the data"
        )
    by_class.pop(-1, None)
    if not by_class:
        return own
    numbered = any(cell[:1].isdigit() for cell in seen)  # 0_angry, or angry alone
    words = coding.words if numbered else [re.sub(r"^\d+[\s._-]*", "", word) or word for word in coding.words]
    styles = (str.lower, str.upper, str.capitalize)
    style = next((s for s in styles if all(word == s(word) for word in by_class.values())), str)
    return tuple(by_class.get(index, style(word)) for index, word in enumerate(words))


def _numbers(seen: set[int], codes: Sequence[int]) -> tuple[str, ...]:
    """Number labels for a sample of numbers: the data's own, unless all that the sample holds are shifted."""
    if min(codes) == 0 and max(seen) == max(codes) + 1 and 0 not in seen:
        return tuple(str(code + 1) for code in codes)
    if len(seen) > 1 and not seen <= set(codes):
        fitting = [shift for shift in (1, -1) if seen <= {code + shift for code in codes}]
        if len(fitting) != 1:
            raise DataError(
                f"the sample holds {', '.join(map(str, sorted(seen)))}, but the classes have the numbers "
                f"{', '.join(map(str, sorted(codes)))}: classes='{min(seen)}=..., ...' says which is which"
            )
        return tuple(str(code + fitting[0]) for code in codes)
    return tuple(map(str, codes))
