"""The options by which a person says what the data are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fer_utils.data.known_expressions_and_splits import normal


@dataclass(frozen=True)
class UserOptions:
    """What a person said about the data (options of `load_competition`): it comes before all evidence."""

    layout: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    classes: str | Mapping[int, str] = "auto"
    splits: str = "auto"
    groups: str = "auto"

    def column(self, role: str) -> str:
        """The column for a role, as it is compared; "" if none was named."""
        return normal(self.columns.get(role, ""))

    def shown_labels(self) -> set[str]:
        """Words in lower case that are labels, though they may stand for a hidden one elsewhere."""
        is_text = isinstance(self.classes, str)
        words = re.split(r"[=,\s]+", self.classes) if is_text else [*self.classes, *self.classes.values()]
        return {str(word).lower() for word in words} | ({"-1"} if self.splits == "none" else set())
