"""Sample submissions, and what a perfect model would hand in."""

from __future__ import annotations

from tests.data.composed.draws import LISTS, Layout
from tests.data.composed.tables import reference


def sample_kind(a: Layout) -> str:
    """What the sample asks for; sometimes what nothing in the data decides, and `classes` then does."""
    words_known = bool(a.arguments) or a.labels not in ("numbers", "fer2013")
    kinds = ["words", "words", "chances by word"] * words_known
    kinds += ["numbers", "numbers", "chances by number"] * (a.labels != "words")
    if a.labels == "words" and a.maybe(0.5):
        kinds += ["numbers", "chances by number"]
    kinds += ["words"] * (a.labels == "numbers" and a.nameless == "yes")
    needed = a.drawn.get("test list") is False and a.drawn["folders"] != "split"
    kind = a.draw("sample", *kinds, *("none",) * (0 if needed else 2))
    if a.labels == "words" and kind.endswith(("numbers", "number")):
        a.base = a.draw("base", 0, 0, 1)
        a.parameter = "classes"
        named = ", ".join(f"{a.code(k)}={w}" for k, w in enumerate(a.words))
        a.way_out = {"classes": named if a.base or a.maybe(0.5) else ", ".join(a.words)}
    if a.labels == "numbers" and kind == "words" and not a.arguments:
        a.parameter, a.way_out = "classes", {"classes": ", ".join(a.words)}
    return kind


def sample(a: Layout) -> None:
    tests = a.of("test")
    if a.nameless == "yes" and a.draw("classes given", *(False,) * 4, True):
        a.arguments, a.nameless = {"classes": ", ".join(a.words)}, "no"
    if a.drawn["split words"] == "letters" and a.splits == "train valid test":
        a.drawn["sample"], a.parameter = "none", "splits"
        a.way_out = {"splits": "train=A, valid=B, test=C"}
        return
    kind = sample_kind(a) if tests else "none"
    if kind == "none":
        return
    files = a.structure in (*LISTS, "class folders", "file names")
    bare = "bare" if "chances" not in kind else "rows"
    ids = ["name", "stem"] + ["int"] * 3 * (a.stems in ("{:05}", "{}")) if files else ["rows", "rows", bare]
    if a.drawn.get("own ids") and a.drawn.get("test list", True):
        ids = ["own"] * 3 + ids * files
    ids += [a.reference] * 2 if a.reference and a.drawn.get("test list", True) else []
    ids = a.draw("sample ids", *ids)
    if ids not in ("rows", "bare") and a.draw("sample order", "same", "shuffled") == "shuffled":
        a.rng.shuffle(tests)
    a.asked = tests
    first = [[reference(a, p, ids)] if files or ids == "own" else [str(n)] for n, p in enumerate(tests)]
    first = [[]] * len(tests) if ids == "bare" else first
    other = a.rng.choice(("picture", "Name") if a.drawn.get("own ids") else ("id", "Id"))
    id_name = a.column.get({"own": "key", a.reference: "image"}.get(ids, ""), other)
    levels = a.rng.sample(range(len(a.words)), len(a.words))
    texts = [a.words[k] if "word" in kind else a.code(k) for k in range(len(a.words))]
    if "chances" in kind:
        a.columns = levels if "word" in kind else sorted(levels)
        prefix = a.draw("prefix", "", "", "prob_", "p_")
        header = [id_name, *(prefix + texts[k] for k in a.columns)]
        lines, a.answer = [f + [f"{1 / len(texts):.6f}"] * len(texts) for f in first], [header, *first]
    else:
        role = kind.removesuffix("s")
        has_column = a.labels in ("words", "both") if role == "word" else a.labels != "words"
        own = a.column.get(role, "") if has_column else ""
        header = [id_name] * (ids != "bare") + [own or a.rng.choice(("Expected", "Category", "prediction"))]
        same = a.draw("placeholders", "same", "random") == "same" and not (a.parameter and a.base)
        guess = [levels[0] if kind == "words" else 0] * len(tests)
        if not same:  # the first and the last number show where the counting starts
            guess = [len(texts) - 1, *a.rng.choices(levels, k=len(tests) - 2), 0]
        lines = [f + [texts[k]] for f, k in zip(first, guess, strict=True)]
        answer = [f + [texts[p.level]] for f, p in zip(first, tests, strict=True)]
        headless = ids == "bare" or a.draw("sample header", True, True, False) is False
        lines, a.answer = [*[header] * (not headless), *lines], [*[header] * (not headless), *answer]
    lines = [header, *lines] if "chances" in kind else lines
    name = a.rng.choice(("sample_submission", "sampleSubmission", "example_submission", "sample_submit"))
    (a.top / f"{name}.csv").write_text("".join(",".join(line) + "\n" for line in lines))
