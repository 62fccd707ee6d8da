"""Named sets of knobs that were measured together; `preset` in `03_training` or in a JSON file names one."""

from __future__ import annotations

from typing import Any

# Little pictures first, Muon, warps but no change of light. Few epochs hardly overfit and want little
# augmentation; what the knobs gave is in outputs/reference/README.md.
_SHORT: dict[str, Any] = {
    "model": "medium",
    "width": 0.5,
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
}
# A knob that a person sets wins over the preset's.
PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "quick": {**_SHORT, "epochs": 12},
    "standard": {**_SHORT, "epochs": 24},
    "best": {
        **_SHORT,
        "width": 0.75,
        "epochs": 46,
        "weight_decay": 0.01,
        "rotate": 16.0,
        "scale": 0.16,
        "shift": 0.1,
        "erase": 0.3,
        "views": "shift",
    },
}
# Of each on FER2013: accuracy on PublicTest (n = 3,589) with views, and the time on one of two cores of an
# AMD EPYC with bfloat16; tests/test_readme.py holds these equal to the files in outputs/reference.
EXPECTED: dict[str, str] = {
    "quick": "65.7 % (sd 0.7, 3 seeds) in 6 min",
    "standard": "67.7 % (sd 0.4, 3 seeds) in 11 min",
    "best": "70.3 % (sd 0.7, 3 seeds) in 43 min",
}
