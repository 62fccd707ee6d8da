"""The recognisers of layouts. To add one: a module with `LOOKS_FOR` (name and what it looks for) and
`propose(tree)`, which returns the images it finds with the columns that describe them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from fer_utils.data.files.file_index import Tree
from fer_utils.data.known_expressions_and_splits import canonical, is_image_name
from fer_utils.data.layouts import image_arrays, image_folders, pixel_tables
from fer_utils.data.layouts.found_pictures import Pictures
from fer_utils.data.tables import Table

RECOGNISERS = (pixel_tables, image_folders, image_arrays)
LAYOUTS = {name: text for module in RECOGNISERS for name, text in module.LOOKS_FOR.items()}

# Forms that are not read, and what to do about them.
_FOREIGN = {
    (".rar", ".7z"): "an archive that this project does not unpack: extract it first",
    (".z01", ".z02"): "one part of an archive in several volumes: join them first (zip -s 0, or 7z x)",
    (".pkl", ".pickle"): "a pickle, which could run any code and is never loaded: save arrays or a table",
    (".tfrecord", ".tfrecords"): "a TFRecord, which is not read: save its images as files",
    (".lmdb", ".mdb"): "an LMDB database, which is not read: save its images as files",
    (".mp4", ".avi"): "a video: save its frames as files",
}


def propose(tree: Tree, layout: str = "auto") -> list[Pictures]:
    """The images that lie there, as each recogniser understands them, the preferred one first.

    Args:
        layout: only what this layout finds, or "auto".
    """
    found, tree.layout = [], layout
    for module in RECOGNISERS:
        if layout == "auto" or layout in module.LOOKS_FOR:
            proposals = module.propose(tree)
            found += [p for p in proposals if layout in ("auto", p.layout, *p.layouts.values())]
    return found


def describe_unknown(tree: Tree, source: str, layout: str = "auto") -> str:
    """The message if no layout fits, or not the one named: what was seen, level by level, what could not be
    read, and what was looked for."""
    levels: dict[int, list[str]] = defaultdict(list)
    for name in sorted(tree.files):
        parts = name.split("/")
        for depth in range(min(len(parts), 4)):
            entry = "/".join(parts[: depth + 1]) + ("/" if depth + 1 < len(parts) else "")
            if entry not in levels[depth][-1:]:
                levels[depth].append(entry)
    seen = [", ".join(names[:6] + [f"... ({len(names):,})"] * (len(names) > 6)) for names in levels.values()]
    foreign = [
        f"{name} is {what}"
        for suffixes, what in _FOREIGN.items()
        for name in tree.files
        if name.lower().endswith(suffixes)
    ]
    bare = [n for n in tree.files if not (s := PurePosixPath(n).suffix) or canonical(s[1:])]
    if 2 * len(bare) > len(tree.files):
        foreign.append(f"files without a suffix, such as {bare[0]}: name images .png or .jpg")
    if not tree.images:
        foreign += [line for n, t in tree.tables.items() if (line := _images_elsewhere(n, t))]
    looked_for = LAYOUTS if layout == "auto" else {layout: LAYOUTS[layout]}
    sections = {
        "The tables hold:": [f"{n}: columns {', '.join(t.columns[:8])}" for n, t in tree.tables.items()][:5],
        "The arrays hold:": image_arrays.described(tree)[:5],
        "Not readable:": [*foreign, *tree.unreadable.values()][:5],
        "Looked for:": [f"{name}: {text}" for name, text in looked_for.items()],
    }
    what = "no known layout" if layout == "auto" else f"not the layout {layout!r}"
    why = ""
    folders = {part for name in tree.images for part in name.split("/")[:-1]}
    if layout == "auto" and tree.images and not tree.tables and not any(map(canonical, folders)):
        why = (
            f"{len(tree.images):,} images, and nothing that names their expressions. Put them into folders "
            "such as train/happy and train/sad, or add a table of file names and labels (to have them "
            "answered by a run: make predict). "
        )
    lines = [f"{source}: {what}. {why}Seen:", *(f"  {line}" for line in seen or ["nothing"])]
    for title, found in sections.items():
        lines += [title, *(f"  {line}" for line in found)] if found else []
    lines.append(
        "layout=, columns=, classes= and splits= say what a reader cannot see (README, Your own data)"
    )
    return "\n".join(lines)


def _images_elsewhere(name: str, table: Table) -> str:
    """What to do about a table that lists images where none lies; "" for another table."""
    for column in table.frame.columns:  # all but those of pixels
        names = [cell for cell in table.frame[column] if is_image_name(cell)]
        if 2 * len(names) > len(table.frame):
            what = f"{name}: its column {column!r} lists images ({names[0]}, ...), and none is here"
            return f"{what}: give the folder that holds both"
    return ""
