"""Random small data sets as competitions lay them out, with known truth, and a judge of how they are read.

    python -m tests.data.composer --n 10000 --seed 1 [-v]    counts, and the share right by what was drawn
    python -m tests.data.composer --only 17                  one again: its message; the folder is kept

What each layout draws, independently where that makes sense, stands in `Layout.drawn`. Each has one sensible
reading, or is undecidable (`Layout.parameter` decides). Verdicts: ok; ok-refused (undecidable, the message
names the parameter, and with it the data are read right); REFUSED (could be read); UNCLEAR (does not name the
parameter); NAMES (labels told apart, classes misnamed); SILENT (read wrongly); CRASH.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import tempfile
import traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("FER_CACHE", "off")
import numpy as np

from fer_utils.competition import Competition, DataError
from fer_utils.data.load import load_competition
from fer_utils.data.submission_csv import write_submission
from tests.data.composed.draws import CANON, Layout, decode, draw_classes, draw_pictures
from tests.data.composed.files import arrays, class_folders, file_names, litter, names_beside, pack, parquet
from tests.data.composed.samples import sample
from tests.data.composed.tables import lists, pixels

RIGHT = ("ok", "ok-refused")


def compose(seed: int, root: Path) -> Layout:
    """Write the layout of `seed` below `root`, and say what is true of it."""
    a = Layout(seed, root / "data", rng=random.Random(seed))
    draw_classes(a)
    a.top = a.at / a.draw("wrapper", "", "", "", "archive", "fer/fer", "Face Data (v2)")
    a.top.mkdir(parents=True)
    draw_pictures(a)
    shapes = {"class folders": class_folders, "file names": file_names, "parquet": parquet, "arrays": arrays}
    shapes.get(a.structure, pixels if "pixels" in a.structure else lists)(a)
    if a.labels == "names beside":
        names_beside(a)
    sample(a)
    litter(a)
    pack(a)
    return a


class Wrong(Exception):
    """The verdict and what is wrong."""


def canonical(name: str) -> str:
    name = re.sub(r"^\d+\W*_?(?=[A-Za-z])", "", str(name).strip().lower())
    return re.sub(r"[\s_-]+", " ", CANON.get(name, name))


def check_splits(a: Layout, read: Competition) -> dict[int, int]:
    """Images and labels against the truth; returns the label of each level."""
    shown = {name: decode(split.images) for name, split in read.splits.items()}
    want = {name: {p.number: p.level for p in a.of(name)} for name in ("train", "valid", "test")}
    got = {name: [number for number, _ in shown.get(name, [])] for name in want}
    if not want["valid"]:
        got["train"], got["valid"] = got["train"] + got["valid"], []
    for name, numbers in got.items():
        if sorted(numbers) != sorted(want[name]):
            extra, lost = Counter(numbers) - Counter(want[name]), Counter(want[name]) - Counter(numbers)
            raise Wrong(
                "SILENT",
                f"{name}: {sum(extra.values())} too many, {sum(lost.values())} missing of {len(want[name])}",
            )
    truth = {p.number: p.level for p in a.pictures}
    if any(truth[number] != level for seen in shown.values() for number, level in seen):
        raise Wrong("SILENT", "images are mangled")
    of_level: dict[int, set[int]] = {}
    for name in ("train", "valid"):
        for (_, level), label in zip(shown.get(name, []), read.splits[name].labels.tolist(), strict=True):
            of_level.setdefault(level, set()).add(label)
    labels = [label for each in of_level.values() for label in each]
    if len(labels) != len(of_level) or len(set(labels)) != len(labels):
        raise Wrong("SILENT", f"labels are mixed up: {of_level} of {read.class_names}")
    found = {level: each.pop() for level, each in of_level.items()}
    told = None if read.test is None else read.test.labels
    if told is not None and [found[level] for _, level in shown["test"]] != told.tolist():
        raise Wrong("SILENT", "labels of test images are wrong")
    return found


def check_names(a: Layout, read: Competition, found: dict[int, int]) -> None:
    got = {level: read.class_names[label] for level, label in found.items()}
    if a.nameless != "no" and all(re.fullmatch(r"(class )?\d+", name) for name in got.values()):
        return
    wrong = {a.words[k]: name for k, name in got.items() if canonical(name) != canonical(a.words[k])}
    if wrong or a.nameless == "yes":
        raise Wrong(
            "NAMES", f"{wrong or got}, {'although nothing names them' if a.nameless == 'yes' else ''}"
        )


def check_answer(a: Layout, read: Competition, found: dict[int, int], file: Path) -> None:
    """What a perfect model would hand in, byte for byte; without a sample, a label for each image."""
    shown = [level for _, level in decode(read.test.images)]
    probs = np.eye(len(read.class_names), dtype=np.float32)[[found[level] for level in shown]]
    write_submission(read, probs, file)
    text = file.read_text()
    got = [line.split(",") for line in text.splitlines()]
    if a.answer is None:
        pairs = set(zip(shown, [line[-1] for line in got[1:]], strict=True))
        if len(pairs) != len(set(shown)) or len({line[0] for line in got[1:]}) != len(shown):
            raise Wrong("SILENT", f"without a sample: {got[:3]}")
        return
    if a.columns is not None and re.search(r"^[^,]*(,[\d.e-]+)+$", text.splitlines()[-1]):
        levels = {tuple(ids): p for ids, p in zip(a.answer[1:], a.asked, strict=True)}
        if [line[:1] for line in got] != [line[:1] for line in a.answer]:
            raise Wrong("SILENT", f"chances: {got[:2]} instead of {a.answer[:2]}")
        chances = np.array([line[1:] for line in got[1:]], float)
        wanted = [a.columns.index(levels[tuple(ids)].level) for ids in a.answer[1:]]
        right = got[0] == a.answer[0] and chances.argmax(1).tolist() == wanted
        if not right or (abs(chances.sum(1) - 1) > 1e-3).any():
            raise Wrong("SILENT", f"chances: {got[:2]} instead of {a.answer[:2]}, class {wanted[0]}")
    elif a.columns is not None or text != "".join(",".join(line) + "\n" for line in a.answer):
        differ = [pair for pair in zip(got, a.answer, strict=False) if pair[0] != pair[1]]
        raise Wrong("SILENT", f"answers: {len(differ)} differ, {differ[:1] or len(got)}")


def judge(a: Layout, folder: Path, **arguments: str) -> str:
    """Load, compare, answer; returns a summary.

    Raises:
        Wrong: it was read wrongly.
        DataError: it was refused.
    """
    try:
        read = load_competition(str(a.at), image_size=48, **arguments)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise DataError(f"load_competition has no {', '.join(arguments)}= yet") from None
    found = check_splits(a, read)
    check_names(a, read, found)
    if a.of("test"):
        check_answer(a, read, found, folder / "answer.csv")
    return read.summary()


def verdict(a: Layout, folder: Path) -> tuple[str, str]:
    """One of the verdicts (see above), and why."""
    try:
        try:
            told = judge(a, folder, **a.arguments)
        except DataError as error:
            if not a.parameter:
                return "REFUSED", str(error)
            if f"{a.parameter}=" not in str(error):
                return "UNCLEAR", f"{a.parameter}= decides; {error}"
        except Wrong as wrong:
            return wrong.args
        else:
            return ("SILENT", f"{a.parameter}= decides, but: {told}") if a.parameter else ("ok", told)
        a.nameless = "no" if "classes" in a.way_out else a.nameless
        try:
            return "ok-refused", judge(a, folder, **{**a.arguments, **a.way_out})
        except DataError as error:
            return "REFUSED", f"with {a.way_out}: {error}"
        except Wrong as wrong:
            return wrong.args[0], f"with {a.way_out}: {wrong.args[1]}"
    except Exception:
        return "CRASH", traceback.format_exc()


def outcome(seed: int) -> tuple[Layout, str, str]:
    with tempfile.TemporaryDirectory(prefix="composed-") as folder:
        a = compose(seed, Path(folder))
        word, why = verdict(a, Path(folder))
        return a, word, why.replace(folder, "")


def described(a: Layout) -> str:
    told = {axis: value for axis, value in a.drawn.items() if value not in ("", False, "none", "no")}
    return f"seed {a.seed}: " + ", ".join(f"{axis} {value!r}" for axis, value in told.items())


def table(results: list[tuple[Layout, str]]) -> str:
    """Share right by each thing drawn often enough to tell, the worst first."""
    counts: dict[tuple[str, str], Counter] = {}
    for a, word in results:
        for axis, value in {"decided by": a.parameter, **a.drawn}.items():
            counts.setdefault((axis, str(value)), Counter())[word] += 1
    rows = sorted((sum(c[w] for w in RIGHT) / c.total(), key, c) for key, c in counts.items())
    return "\n".join(
        f"{axis + ' ' + value:44} {share:6.1%} of {c.total():6}  "
        + ", ".join(f"{n} {word}" for word, n in c.most_common())
        for share, (axis, value), c in rows
        if value not in ("", "False") and c.total() >= len(results) / 100
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1, help="the first; layout k has seed + k")
    parser.add_argument("--only", type=int, help="this one alone; its folder is kept")
    parser.add_argument("--shown", type=int, default=20, help="how many failures to describe")
    parser.add_argument("-v", action="store_true", help="whole messages")
    options = parser.parse_args()
    if options.only is not None:
        folder = Path(tempfile.mkdtemp(prefix=f"composed-{options.only}-"))
        a = compose(options.only, folder)
        print(described(a), folder, *verdict(a, folder), sep="\n")
        print(f"parameter {a.parameter!r}, way out {a.way_out}, arguments {a.arguments}, words {a.words}")
        return
    results, shown = [], 0
    for seed in range(options.seed, options.seed + options.n):
        a, word, why = outcome(seed)
        results.append((a, word))
        if word not in RIGHT and shown < options.shown:
            shown += 1
            print(f"{word}: {described(a)}\n    {why if options.v else why[:300]}\n")
    print(table(results))
    print(*(f"{n} {word}" for word, n in Counter(word for _, word in results).most_common()), sep=", ")


if __name__ == "__main__":
    main()
