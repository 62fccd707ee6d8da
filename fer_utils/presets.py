"""Named sets of knobs that were measured together; `preset` in `03_training` or in a JSON file names one."""

from __future__ import annotations

from typing import Any

# A knob that a person sets to another value than its default wins over the preset's.
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    # The best PublicTest accuracy for few minutes (benchmarks/time_to_accuracy.py): little pictures first,
    # Muon, and light augmentation, since a short training hardly overfits. Two Xeon cores, float32, one seed,
    # n = 3,589, plain: 62.2 % with 7 epochs in 268 s, 65.1 % with 13 in 604 s, 66.4 % with 11 epochs of
    # `medium` in 1,248 s. At 8 epochs Muon stood 2.4 points above SGD (63.6 against 61.2 %).
    "quick": {
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
