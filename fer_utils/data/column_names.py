"""The names that columns of tables go by; add one here to have it recognised."""

# The column names that are recognised for each role, the surest first. For other names, such as a label
# column called mood, pass columns="label=mood" to load_competition.
COLUMNS = {
    "label": (
        *("emotion", "label", "class", "category", "target", "expression", "emotions", "labels"),
        *("class_name", "class_label", "label_name", "expression_label", "emotion_label", "emotion label"),
        *("sentiment", "prediction", "predicted", "expected", "y"),
    ),
    "pixels": ("pixels", "pixel", "feature", "features"),
    "usage": ("usage", "split", "subset", "set", "data set", "dataset", "partition"),
    "image": (
        *("image", "image_path", "filename", "file", "file_name", "path", "pth", "filepath", "file_path"),
        *("img", "image_name", "image name", "name", "img_path", "img_name", "imagename", "picture"),
        *("filepaths", "filenames", "image_file", "image file", "subdirectory_filepath"),
        *("subdirectory_file_path", "id", "image_id", "id_code"),
    ),
    "id": ("id", "image_id", "row_id", "imageid", "index"),
}
KNOWN_NAMES = {name for names in COLUMNS.values() for name in names}
