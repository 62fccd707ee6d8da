"""Named sets of knobs that were measured together; `preset` in `03_training` or in a JSON file names one."""

from __future__ import annotations

from typing import Any

# A knob that a person sets to another value than its default wins over the preset's.
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "speed": {},
}
