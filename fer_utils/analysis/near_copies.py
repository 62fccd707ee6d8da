"""Near copies: the same photograph in another crop, light or mirrored. Test labels are not read."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import pandas as pd

from fer_utils.arrays_on_disk import concatenate
from fer_utils.competition import Competition, copies_of
from fer_utils.data.decode_images import with_channels
from fer_utils.progress import bar

# Correlation of two images at their best shift. Of 100 pairs of FER2013 above it, 99 were the same
# photograph (other crop, light, compression or watermark); of the 34 mirrored pairs above theirs, 33.
NEAR, NEAR_MIRRORED = 0.92, 0.94
# Pairs whose thumbnails correlate by so much are compared at every shift.
_CANDIDATE, _THUMBNAIL = 0.90, 16
_BLOCK, _MOST_PER_PICTURE = 1024, 5
# Every image is compared with every other: twice the images take four times as long.
MOST_COMPARED = 60_000
PAIRS = (("valid", "train"), ("test", "train"), ("test", "valid"))  # whose copies are looked for in which


def all_images(competition: Competition) -> np.ndarray:
    """The images of all splits, uint8 [N, C, H, W], in the order of `audit.image_table`."""
    return concatenate([split.images for split in competition.splits.values()])


def near_copies(competition: Competition, table: pd.DataFrame) -> pd.DataFrame:
    """Pairs of images that are nearly the same, or nearly mirror images; exact copies count as one image.

    Candidates are found by thumbnails, so an image shifted by more than about a pixel in thirty may be
    missed. Only the first `MOST_COMPARED` different images of the `audit.image_table` are compared.

    Returns:
        A row per pair, the most alike first: `first` and `second`, rows of the table; `similarity`, the
        correlation at the best shift of up to a sixteenth of the size; `mirrored`.
    """
    different = table[~table.blank].drop_duplicates("group").index.to_numpy()[:MOST_COMPARED]
    images = with_channels(all_images(competition)[different], 1)
    pairs = pd.concat(
        _near(images, images, mirrored, within=True).assign(mirrored=mirrored) for mirrored in (False, True)
    )
    pairs[["first", "second"]] = different[pairs[["first", "second"]]]
    return pairs.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)


def near_report(competition: Competition, table: pd.DataFrame, near: pd.DataFrame) -> dict[str, int]:
    """Count near copies, ready for JSON: pairs; images of a split that have one, but no exact copy, in
    another; and pairs of which both images are labelled."""
    first, second = (table.loc[near[name]] for name in ("first", "second"))
    codes, other_codes = (rows.label.cat.codes.to_numpy() for rows in (first, second))
    labelled = (codes >= 0) & (other_codes >= 0)
    report = {
        "pairs": int((~near.mirrored).sum()),
        "mirrored_pairs": int(near.mirrored.sum()),
        "labelled_pairs": int(labelled.sum()),
        "conflicting_pairs": int((labelled & (codes != other_codes)).sum()),
    }
    for pair in PAIRS:  # as 03 counts them: the pairs above are only those most alike of each image
        report["_in_".join(pair)] = 0
        if competition.splits.keys() >= set(pair):
            images, others = (competition.splits[name].images for name in pair)
            only_near = near_copies_of(images, others) & ~copies_of(images, others)
            report["_in_".join(pair)] = int(only_near.sum())
    return report


def near_copies_of(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of uint8 [N, C, H, W] have an exact, near or mirrored copy in `others` [M, C, H, W], whatever
    the colours of the near ones: bool [N]."""
    found = copies_of(images, others)  # also blank ones, which correlate with nothing
    images, others = with_channels(images, 1), with_channels(others, 1)
    for mirrored in (False, True):
        found[_near(images, others, mirrored, within=False)["first"]] = True
    return found


def _near(images: np.ndarray, others: np.ndarray, mirrored: bool, within: bool) -> pd.DataFrame:
    """Near copies: `first` and `second`, rows of both, and `similarity`; `within` one set, each pair once."""
    images = images[..., ::-1] if mirrored else images
    queries, targets = standardised(images, _THUMBNAIL), standardised(others, _THUMBNAIL)
    blocks = [pd.DataFrame({"first": [], "second": []}, dtype=np.int64)]
    for start in bar(range(0, len(queries), _BLOCK), "near copies"):
        offset = start if within else 0  # earlier rows are compared already
        alike = queries[start : start + _BLOCK] @ targets[offset:].T
        if within:
            alike[np.tri(len(alike), alike.shape[1], dtype=bool)] = 0
        first, second = np.nonzero(alike > _CANDIDATE)
        block = pd.DataFrame({"first": first + start, "second": second + offset})
        block = block.loc[np.lexsort((-alike[first, second], first))]
        # The frames of a video are all alike, and would otherwise be very many pairs.
        blocks.append(block.groupby("first").head(_MOST_PER_PICTURE))
    pairs = pd.concat(blocks, ignore_index=True)
    one, other = images[pairs["first"]], others[pairs["second"]]
    # Only the second is shifted: that of the later split, as in `near_copies`. A pair near the threshold may
    # be above it one way round only.
    pairs["similarity"] = _best_correlation(one, other) if within else _best_correlation(other, one)
    return pairs[pairs.similarity >= (NEAR_MIRRORED if mirrored else NEAR)]


def standardised(images: np.ndarray, size: int) -> np.ndarray:
    """Thumbnails of `size` pixels as `unit_vectors`, float32 [N, size * size]. (Smaller images are enlarged
    by repeating pixels.)"""
    images = with_channels(images, 1)
    edges = np.arange(size) * images.shape[-1] // size
    areas = np.diff(np.append(edges, images.shape[-1])).clip(min=1).astype(np.float32)
    sums = np.add.reduceat(np.add.reduceat(images[:, 0], edges, 1, np.float32), edges, 2)
    return unit_vectors(sums / (areas[:, None] * areas))


def unit_vectors(pictures: np.ndarray) -> np.ndarray:
    """Images [N, ...] as vectors of length 1 and mean 0, [N, P]: their products are correlations, which do
    not depend on brightness and contrast."""
    vectors = pictures.reshape(len(pictures), math.prod(pictures.shape[1:]))
    vectors = vectors - vectors.mean(1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-6)


def _best_correlation(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The correlation of pairs of uint8 [N, 1, H, W] at the best shift of the second, float32 [N]."""
    reach = max(1, images.shape[-1] // 16)
    best = np.full(len(images), -1, np.float32)
    inner = [slice(reach + shift, images.shape[-1] - reach + shift) for shift in range(-reach, reach + 1)]
    for start in range(0, len(images), _BLOCK):
        some = slice(start, start + _BLOCK)
        middle = unit_vectors(images[some, 0, inner[reach], inner[reach]].astype(np.float32))
        for rows in inner:
            for columns in inner:
                other = unit_vectors(others[some, 0, rows, columns].astype(np.float32))
                best[some] = np.maximum(best[some], np.einsum("ij,ij->i", middle, other))
    return best


def other_faces(share: float, counts: Collection[int]) -> float | None:
    """The share of any two images whose labels differ, by the images of each class, if near copies differ
    in so large a `share` that they are no copies, but different faces that look alike; else None."""
    by_chance = 1 - sum((n / sum(counts)) ** 2 for n in counts)
    return by_chance if share > by_chance / 2 else None  # of one photograph, labels are not so bad
