"""The names that columns of tables go by. A name only decides between columns that could all be meant; what
a column holds comes first. For other names pass, for instance, columns="label=mood" to load_competition."""

import re
from collections.abc import Collection

# The names that are recognised for each role, the surest first.
COLUMNS = {
    "label": (
        *("emotion", "label", "class", "category", "target", "expression", "emotions", "labels"),
        *("class_name", "class_label", "label_name", "expression_label", "emotion_label", "emotion label"),
        *("facial_expression", "sentiment", "prediction", "predicted", "expected", "y"),
    ),
    "pixels": ("pixels", "pixel", "feature", "features"),
    "split": ("usage", "split", "subset", "set", "data set", "dataset", "partition", "phase"),
    "image": (
        *("image", "image_path", "filename", "file", "file_name", "path", "pth", "filepath", "file_path"),
        *("img", "image_name", "image name", "name", "img_path", "img_name", "imagename", "picture"),
        *("filepaths", "filenames", "image_file", "image file", "subdirectory_filepath"),
        *("subdirectory_file_path", "id", "image_id", "id_code"),
    ),
    "id": ("id", "image_id", "row_id", "imageid", "index"),
    "subject": (
        *("subject", "subject_id", "person", "person_id", "user", "user_id", "participant"),
        *("participant_id", "actor", "actor_id", "identity", "speaker"),
    ),
}
# Names that say that a column is a label, an id or a split, even where its cells alone would not.
SURE_LABELS = {name for name in COLUMNS["label"] if re.search("emotion|expression|label", name)}
KNOWN_NAMES = {name for names in COLUMNS.values() for name in names}
# Columns about the person or the image, which are no label unless somebody says so.
ABOUT = {
    *("age", "gender", "sex", "race", "ethnicity", "country", "nationality", "glasses", "pose", "lighting"),
    *("source", "dataset", "database", "origin", "camera", "annotator", "confidence", "batch", "frame"),
}
# Columns whose numbers count something that has many images, so that they are no names of files.
OF_MANY = {"clip", "video", "sequence", "scene", "session", "shot", "track", "utterance"}
BOXES = (
    *({"x", "y", "w", "h"}, {"x", "y", "width", "height"}, {"xmin", "ymin", "xmax", "ymax"}),
    *({"x_min", "y_min", "x_max", "y_max"}, {"x1", "y1", "x2", "y2"}, {"left", "top", "width", "height"}),
    *({"left", "top", "right", "bottom"}, {"face_x", "face_y", "face_width", "face_height"}),
    *({"bbox"}, {"bounding_box"}, {"face_box"}, {"box"}),
)
# Columns that tools write beside the data.
ROW_NUMBERS = ("", "index", "unnamed: 0")


def is_split_name(name: str) -> bool:
    """Whether a column's name says that it divides the data."""
    words = {"split", "usage", "subset", "set", "partition", "part", "phase"}
    return not words.isdisjoint(re.split(r"[^a-z]+", name))


def boxes_in(columns: Collection[str]) -> set[str]:
    """The columns that say where in an image a face is."""
    return set().union(*(box for box in BOXES if box <= set(columns)))


def rank(role: str, name: str) -> int:
    """The place of a name among those of a role, the surest 0; a large number for any other name."""
    return COLUMNS[role].index(name) if name in COLUMNS[role] else len(KNOWN_NAMES)
