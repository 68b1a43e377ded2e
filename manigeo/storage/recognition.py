"""Recognition of a file or folder that was given in place of another, by its first bytes, for the message about it."""

from os import PathLike
from pathlib import Path

ACTIVATIONS = "an activation file of manigeo extract"
RESULTS = "a results table (.csv, .json, .parquet)"
EXAMPLES = "a table of examples"
RECORD = "the record of single examples of a training"
WEIGHTS = "a checkpoint"
RUN = "the folder of a run"
ARRAYS = "an array of NumPy"
EMPTY = "an empty file"
_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".pt2")
# what it is -> the command that takes it, and what that does
_TAKEN_BY = {
    ACTIVATIONS: "manigeo capacity {path} makes results of it",
    RESULTS: "manigeo plot {path} draws it",
    EXAMPLES: "manigeo plot {path} draws it",
    RECORD: "manigeo memorization takes the folders of such runs",
    WEIGHTS: "manigeo extract --model {path} writes its activations, manigeo analyze {path} does all of it",
    RUN: "manigeo analyze {path} makes all of it",
    ARRAYS: "manigeo capacity {path} and manigeo separability take it",
}


def recognized(path: str | PathLike[str]) -> str:
    """Name the kind of a path: one of the words above, or "a folder", "an array of NumPy", "a file of another program".

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "x.h5"
    >>> _ = path.write_bytes(b"")
    >>> recognized(path), recognized(path.parent)
    ('an empty file', 'a folder')
    """
    path = Path(path)
    if path.is_dir():
        return RUN if (path / "run.json").is_file() or (path / "checkpoints").is_dir() else "a folder"
    with open(path, "rb") as file:
        head = file.read(1024)
    if head.startswith(b"\x89HDF"):
        return ACTIVATIONS
    if path.suffix in _SUFFIXES or (head.startswith(b"PK\3\4") and b"data.pkl" in head):
        return WEIGHTS
    if head.startswith(b'{"format": "manigeo-recorded-examples"'):
        return RECORD
    first = head.split(b"\n", 1)[0]
    if all(word in first for word in (b"index", b"true_label", b"metric", b"value")):
        return EXAMPLES
    if all(word in first for word in (b"layer", b"metric", b"value", b"settings")) or head.startswith(b"PAR1"):
        return RESULTS
    if not head:
        return EMPTY
    return ARRAYS if head.startswith((b"\x93NUMPY", b"PK\3\4")) else "a file of another program"


def mistaken(path: str | PathLike[str], expected: str) -> str:
    """The message about a path that is not what was expected: what it is, and the command that takes such a one.

    >>> mistaken(".", RUN)
    '. is a folder, expected the folder of a run'
    """
    found = recognized(path)
    use = f"; {_TAKEN_BY[found].format(path=path)}" if found in _TAKEN_BY and found != expected else ""
    return f"{path} is {found}, expected {expected}{use}"
