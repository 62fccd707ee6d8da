"""Competitions and data sets from Kaggle, fetched by kagglehub where it is installed.

Never on the path of a submission notebook: Kaggle mounts its inputs, and the internet is off there.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

from fer_utils.competition import DataError

PAGE = r"https?://(?:www\.)?kaggle\.com/"


def download(data: str) -> Path:
    """Fetch what `data` names, or find it where kagglehub kept it the last time.

    Args:
        data: "kaggle:competition/<slug>" or "kaggle:dataset/<owner>/<slug>", or the address of its page.

    Raises:
        DataError: another form, no kagglehub, no network or token, or rules that were not accepted.
    """
    match = re.fullmatch(r"kaggle:(?:competition/([\w.-]+)|dataset/([\w.-]+/[\w.-]+))/?", data) or re.match(
        rf"{PAGE}(?:(?:competitions|c)/([\w.-]+)|datasets/([\w.-]+/[\w.-]+))", data
    )
    if match is None:
        raise DataError(
            f"{data!r} is not a Kaggle address: write kaggle:competition/<slug> or "
            "kaggle:dataset/<owner>/<slug>"
        )
    competition, dataset = match.groups()
    if os.environ.get("KAGGLE_KERNEL_RUN_TYPE"):
        raise DataError(
            f"{data} is not downloaded within Kaggle: attach it to the notebook with Add Input, and leave "
            "data at 'auto'"
        )
    try:
        kagglehub = importlib.import_module("kagglehub")
    except ImportError as error:
        raise DataError(
            f"{data} needs kagglehub: python -m pip install kagglehub; or download it from kaggle.com and "
            "give the folder as data"
        ) from error
    try:
        fetch = kagglehub.competition_download if competition else kagglehub.dataset_download
        return Path(fetch(competition or dataset))
    except Exception as error:  # requests' errors and kagglehub's own, whatever its version calls them
        page = f"competitions/{competition}/rules" if competition else f"datasets/{dataset}"
        reason = (str(error).strip() or "no message").splitlines()[0].strip()
        raise DataError(
            f"{data} could not be downloaded ({type(error).__name__}: {reason}). Is there a "
            "network; a token in ~/.kaggle/kaggle.json (kaggle.com/settings, Create New Token); and did you "
            f"accept the rules at kaggle.com/{page}?"
        ) from error
