"""What a person said about the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fer_utils.data.words import normal


@dataclass(frozen=True)
class Said:
    """What a person said about the data: it comes before all evidence."""

    layout: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    classes: str = "auto"
    splits: str = "auto"
    groups: str = "auto"

    def column(self, role: str) -> str:
        """The column for a role, as it is compared; "" if none was named."""
        return normal(self.columns.get(role, ""))
