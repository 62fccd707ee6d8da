"""Named sets of knobs that were measured together; `preset` in `03_training` or in a JSON file names one."""

from __future__ import annotations

from typing import Any

# A knob that a person sets to another value than its default wins over the preset's.
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    # The best PublicTest accuracy for few minutes (benchmarks/time_to_accuracy.py): little pictures first,
    # Muon, and light augmentation, since a short training hardly overfits.
    "speed": {
        "optimizer": "muon",
        "batch_size": 256,
        "start_size": 28,
        "dropout": 0.0,
        "rotate": 10.0,
        "scale": 0.1,
        "shift": 0.06,
        "brightness": 0.0,
        "contrast": 0.0,
        "erase": 0.0,
    },
}
