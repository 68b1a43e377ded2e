"""Files of any content: a reader ends with what is there or with one line, soon, in little memory, and runs nothing of it.

A few hundred inputs here; ``MANIGEO_FUZZ=20000 pytest tests/test_fuzz.py`` for a campaign.
"""

import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manigeo.activations.layout import LAYER_ATTRS, fingerprint_of
from manigeo.errors import ManigeoError
from manigeo.results import COLUMNS
from tests.fuzzing import (
    READERS,
    labels_data,
    read_activations,
    read_configs,
    read_label_file,
    read_results_again,
    read_run,
)

ROOT = Path(__file__).resolve().parents[1]
INPUTS = int(os.environ.get("MANIGEO_FUZZ", "300"))  # half of them with changed bytes, half with changed structure
CAMPAIGN = "MANIGEO_FUZZ" in os.environ
EXAMPLES = settings(
    max_examples=INPUTS // 12, deadline=None, derandomize=not CAMPAIGN, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def refused(read: Any, *arguments: Any) -> str:
    """What the reader says in one line, or nothing; anything else that is raised fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a command prints them, and goes on
        try:
            read(*arguments)
        except ManigeoError as error:
            said = str(error)
        else:
            return ""
    assert 0 < len(said) < 3000
    return said


# ------------------------------------------------------------------------------------------------------------------ bytes
@pytest.mark.long
def test_a_file_with_changed_bytes_is_refused_or_read_with_checksums_as_it_was(tmp_path):
    each = INPUTS // (2 * len(READERS))
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "tests.fuzzing",
        ",".join(READERS),
        "0",
        str(each),
        str(tmp_path),
    ]
    path = os.pathsep.join([str(ROOT), str(ROOT / "extract")])
    ran = subprocess.run(
        command, cwd=ROOT, check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert ran.returncode == 0, (tmp_path / "at").read_text() + ran.stderr  # the library fell, or hung, on this input
    reports = json.loads(ran.stdout)
    assert [finding for report in reports.values() for finding in report["findings"]] == []
    harmless = sum(report["read"] for report in reports.values())
    assert 0 < harmless < each * len(reports) / 2


# -------------------------------------------------------------------------------------------------------------- structure
class Deep(str):
    """A text too long to print."""

    def __repr__(self) -> str:
        return f"Deep({self[:3]!r} * ...)"


ODD = ["a/b", ".", "..", "é\n", "\u202e", "</script>", Deep("x" * 10_000)]
NAMES = st.one_of(st.sampled_from([*COLUMNS, *ODD]), st.text(max_size=8))
NUMBERS = st.one_of(
    st.integers(-5, 60), st.sampled_from([10**12, 2**63 - 1, -(2**63), 2**64, 10**40]), st.floats(), st.booleans()
)
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, NAMES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
)
DEEP = st.sampled_from([Deep("[" * 100_000), Deep('{"a":' * 100_000), Deep("[" * 500 + "]" * 500)])


@pytest.fixture(scope="module")
def valid(folder) -> bytes:
    return READERS["activations"].contents(folder)["acts.h5"]


ATTRIBUTES = st.one_of(
    NUMBERS.filter(lambda n: not isinstance(n, int) or abs(n) < 2**63), st.text(max_size=5).filter(lambda t: "\0" not in t),
    DEEP.map(lambda text: Deep(text[:60_000])),
    st.sampled_from(["{}", "[]", "null", '{"a": NaN}', b"\xff\xfe", h5py.Empty("f4")]),
    st.lists(st.integers(0, 2**40), max_size=3).map(np.array),
)  # fmt: skip
HEADER = ("format", "format_version", "complete", "n_done", "created", "manigeo_version", "provenance", "shard")
PLACES = [
    "examples", "examples/index", "examples/split", "examples/true_label", "examples/train_label", "examples/permuted",
    "classes", "layers", "layers/input", "layers/a/b", "layers/projected",
]  # fmt: skip
SHAPES = st.sampled_from([(), (0,), (51,), (10**12,), (51, 0), (51, 6), (51, 10**10), (10**12, 6), (51, 6, 1)])
DTYPES = st.sampled_from(["f4", ">f4", "f2", "f8", "i1", "u8", "?", "S5", "c8", h5py.string_dtype(), "f4,i2"])
CHANGES = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(HEADER), ATTRIBUTES),
    st.tuples(st.sampled_from(PLACES[-3:]), st.sampled_from(LAYER_ATTRS), ATTRIBUTES),
    st.tuples(st.just("delete"), st.sampled_from(PLACES), st.none()),
    st.tuples(st.just("group"), st.sampled_from(PLACES), st.none()),
    st.tuples(st.just("soft"), st.sampled_from(PLACES), st.sampled_from(["/", "/layers", "/nowhere"])),
    st.tuples(st.just("hard"), st.sampled_from(PLACES), st.sampled_from(["/", "/layers", "/examples/index"])),
    st.tuples(st.just("external"), st.sampled_from(PLACES), st.sampled_from(["/dev/zero", "acts.h5", "other.h5"])),
    st.tuples(st.just("raw"), st.sampled_from(PLACES), st.sampled_from(["/dev/zero", "/etc/passwd"])),
    st.tuples(st.just("array"), st.sampled_from(PLACES), st.tuples(SHAPES, DTYPES, st.booleans())),
    st.tuples(st.just("more"), st.sampled_from(ODD), st.tuples(SHAPES, DTYPES, st.booleans())),
)  # fmt: skip


def change(file: h5py.File, what: str, place: str, value: Any) -> None:
    if what == "set" or what.startswith("layers/"):
        (file if what == "set" else file[what]).attrs[place] = value
        return
    if what == "more":
        place = f"layers/{place}"
    elif place in file:
        kept = dict(file[place].attrs) if what == "array" else {}
        target = file[value] if what == "hard" else None
        del file[place]
    match what:
        case "group":
            file.create_group(place)
        case "soft":
            file[place] = h5py.SoftLink(value)
        case "external":
            file[place] = h5py.ExternalLink(value, "/layers/input")
        case "hard":
            file[place] = target
        case "raw":
            file.create_dataset(place, (51,), "i8", external=[(value, 0, h5py.h5f.UNLIMITED)])
        case "array" | "more":
            shape, dtype, chunked = value
            chunks = tuple(min(7, n) for n in shape) if chunked and 0 not in shape and shape else None
            made = file.create_dataset(place, shape, dtype, chunks=chunks)
            for name, attribute in kept.items() if what == "array" else ():
                made.attrs[name] = attribute


@EXAMPLES
@given(changes=st.lists(CHANGES, min_size=1, max_size=3), renewed=st.booleans())
def test_an_activation_file_of_any_structure_is_refused_in_one_line_or_read(folder, valid, changes, renewed):
    (folder / "acts.h5").write_bytes(valid)
    with h5py.File(folder / "acts.h5", "r+") as file:
        for what in changes:
            with suppress(Exception):  # HDF5 has no such file
                change(file, *what)
        if renewed:  # by one who knows how, so that the fingerprint says nothing
            with suppress(Exception):
                file.attrs["fingerprint"] = fingerprint_of(file) if _small(file) else ""
    assert "root:" not in refused(read_activations, folder)


def _small(file: h5py.File) -> bool:
    sizes: list[int] = []
    file.visititems(lambda name, node: sizes.append(getattr(node, "size", 0) or 0))
    return max(sizes) < 10**6 and not any(getattr(file.get(place), "external", None) for place in PLACES)


@EXAMPLES
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(COLUMNS) | NAMES, VALUES, max_size=5), max_size=4),
    whole=st.booleans(),
)
def test_a_results_table_of_any_json_is_refused_in_one_line_or_read_and_rewritten(folder, rows, whole):
    for path in folder.glob("a.*"):
        path.unlink()
    rows = [dict.fromkeys(COLUMNS) | row for row in rows] if whole else rows
    (folder / "a.json").write_text(json.dumps(rows))
    refused(read_results_again, folder)


CELLS = st.one_of(NUMBERS.map(str), NAMES, st.sampled_from(['"', "=1+1", "1e400", "1_0", "0x1", "\0", "nan", "True"]))


@EXAMPLES
@given(rows=st.lists(st.lists(CELLS, min_size=14, max_size=14), max_size=4), end=st.sampled_from(["\n", "\r", "\r\n"]))
def test_a_results_table_of_any_csv_is_refused_in_one_line_or_read_and_rewritten(folder, rows, end):
    for path in folder.glob("a.*"):
        path.unlink()
    text = end.join([",".join(COLUMNS), *(",".join(row) for row in rows)])
    (folder / "a.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(read_results_again, folder)


@pytest.fixture(scope="module")
def data() -> Any:
    return labels_data()


@EXAMPLES
@given(
    rows=st.lists(
        st.tuples(CELLS | st.integers(0, 1796).map(str), CELLS | st.integers(0, 9).map(str), CELLS), max_size=6
    ),
    header=st.sampled_from(
        ["index,train_label,split", "index,train_label,permuted", "index,train_label,index", "a,b,c"]
    ),
)
def test_a_label_file_of_any_content_is_refused_or_gives_every_example_one_label(folder, data, rows, header):
    (folder / "labels.csv").write_bytes("\n".join([header, *map(",".join, rows)]).encode("utf-8", "surrogatepass"))
    refused(read_label_file, folder, data)


def toml(value: Any) -> str:
    """As a TOML writer would put it; what TOML does not have comes out as something that is no TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


OPTIONS = [
    "seed",
    "out",
    "kinds",
    "per_class",
    "kappa",
    "jobs",
    "force",
    "config",
    "help",
    "layers",
    "epochs",
    "data_args",
]
LINES = st.dictionaries(st.sampled_from(OPTIONS) | NAMES, VALUES | st.just("\0"), max_size=4).map(
    lambda content: Deep("\n".join(f"{json.dumps(key)} = {toml(value)}" for key, value in content.items()))
)


@EXAMPLES
@given(content=LINES | DEEP.map(lambda text: Deep(f"seed = {text}")), command=st.sampled_from(["capacity", "train"]))
def test_a_configuration_of_any_toml_is_refused_in_one_line_or_taken(folder, content, command):
    for path in folder.glob("*.toml"):
        path.unlink()
    (folder / f"{command}.toml").write_bytes(content.encode("utf-8", "surrogatepass"))
    refused(read_configs, folder)


@EXAMPLES
@given(name=st.sampled_from(["run.json", "steps.json"]), content=VALUES.map(json.dumps).map(Deep) | DEEP)
def test_a_run_of_any_json_is_refused_in_one_line_or_read(folder, name, content):
    place = folder / "run"
    place.mkdir(exist_ok=True)
    valid = dict(READERS["run"].contents(place)) | {name: content.encode("utf-8", "surrogatepass")}
    for path, text in valid.items():
        (place / path).write_bytes(text)
    refused(read_run, place)


# ------------------------------------------------------------------------------------------------------------------ claims


def npy(shape: str) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode()


def archive(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return made.getvalue()


def packed(n_bytes: int) -> bytes:
    """Zeros where a checkpoint has its pickle, a thousandth of their number."""
    return archive(**{"archive/version": b"3\n", "archive/data.pkl": bytes(n_bytes)})


def tensors(size: int) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}).encode()
    return struct.pack("<Q", len(header)) + header


CLAIMS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "idx of 10^9 images": ("train-images-idx3-ubyte", lambda: b"\0\0\x08\x03" + struct.pack(">III", 10**9, 28, 28)),
    "npz of 10^12 images": ("a.npz", lambda: archive(**{"x_train.npy": npy("(1000000000000, 8, 8)")})),
    "npz of objects": ("a.npz", lambda: archive(**{"x_train.npy": npy("(2,)").replace(b"'|u1'", b"'|O' ")})),
    "pickle with memo 2^26": ("train", lambda: b"\x80\x02]r\0\0\0\4."),
    "pickle with a text of 2^60": ("train", lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"a"),
    "safetensors of 10^15 numbers": ("a.safetensors", lambda: tensors(10**15)),
    "safetensors with a header of 10^15": ("a.safetensors", lambda: struct.pack("<Q", 10**15) + b"{"),
    "checkpoint of 500 MB in 500 kB": ("own.pt", lambda: packed(500 << 20)),
    "table of 10^5 brackets": ("a.json", lambda: b"[" * 10**5),
    "settings of 10^5 brackets": ("a.csv", lambda: f"{','.join(COLUMNS)}\n{',' * 12}{'[' * 10**5},\n".encode()),
}
READS = dict.fromkeys(["train-images-idx3-ubyte", "a.npz", "train"], "data") | {
    "own.pt": "checkpoints",
    "a.safetensors": "old_checkpoints",
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_file_that_claims_more_than_it_holds_is_refused_in_little_memory(tmp_path, claim):
    name, content = CLAIMS[claim]
    reader = READERS[READS.get(name, "results")]
    for other, valid in reader.contents(tmp_path).items():
        (tmp_path / other).write_bytes(valid)
    reader.read(tmp_path)  # imports
    (tmp_path / name).write_bytes(content())
    assert memory_of(lambda: refused(reader.read, tmp_path)) < 200 << 20


ROWS_CLAIMED = 10**12, 10**8  # more than any memory, and as many as one may have


@pytest.mark.parametrize("rows", ROWS_CLAIMED)
@pytest.mark.parametrize("places", [PLACES[1:6], ["classes"], ["layers/input"], ["layers/projected"]], ids=str)
def test_an_activation_file_that_claims_too_many_rows_is_refused_in_little_memory(tmp_path, valid, places, rows):
    (tmp_path / "acts.h5").write_bytes(valid)
    with h5py.File(tmp_path / "acts.h5", "r+") as file:
        for place in places:
            attributes, dtype = dict(file[place].attrs), file[place].dtype
            shape = (rows, *file[place].shape[1:])
            del file[place]
            claimed = file.create_dataset(place, shape, dtype, chunks=(10**4, *shape[1:]))
            claimed.attrs.update({name: value for name, value in attributes.items() if name != "DIMENSION_LIST"})
    assert memory_of(lambda: refused(read_activations, tmp_path)) < 200 << 20


@pytest.mark.parametrize("how", ["soft link", "external link", "external data", "virtual"])
def test_an_activation_file_reads_no_other_place(tmp_path, valid, how):
    for name in ("acts.h5", "other.h5"):
        (tmp_path / name).write_bytes(valid)
    with h5py.File(tmp_path / "acts.h5", "r+") as file:
        attributes, shape = dict(file["layers/input"].attrs), file["layers/input"].shape
        if how == "soft link":
            file.move("layers/input", "elsewhere")
            file["layers/input"] = h5py.SoftLink("/elsewhere")
        else:
            del file["layers/input"]
        if how == "external link":
            file["layers/input"] = h5py.ExternalLink("other.h5", "/layers/input")
        if how == "external data":
            file.create_dataset("layers/input", shape, "f4", external=[("other.h5", 0, 51 * 24)])
        if how == "virtual":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "layers/input", shape)
            file["layers"].create_virtual_dataset("input", layout)
        if how in ("external data", "virtual"):
            file["layers/input"].attrs.update({name: attributes[name] for name in LAYER_ATTRS})
    assert "lies " in refused(read_activations, tmp_path)


def memory_of(refusal: Callable[[], str]) -> int:
    """By how many bytes a process of its own grew that must refuse something."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if (child := os.fork()) == 0:
        os._exit(0 if refusal() else 1)
    _, status, usage = os.wait4(child, 0)
    assert status == 0
    return (usage.ru_maxrss - before) << 10


# -------------------------------------------------------------------------------------------------------------------- code
class Runs:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["own.pt", "a.safetensors", "a.npz", "train", "meta"])
def test_no_file_runs_what_is_in_it(tmp_path, name):
    import torch

    places = {"own.pt": "checkpoints", "a.safetensors": "old_checkpoints"}
    reader = READERS[places.get(name, "data")]
    for other, valid in reader.contents(tmp_path).items():
        (tmp_path / other).write_bytes(valid)
    trap, mark = io.BytesIO(), tmp_path / "it ran"
    if name.startswith("a.npz"):
        np.savez(trap, x_train=np.array([Runs(mark)]), allow_pickle=True)
    elif name == "own.pt":
        torch.save({"state_dict": Runs(mark)}, trap)
    else:
        pickle.dump({b"data": Runs(mark), b"fine_label_names": Runs(mark)}, trap)
    (tmp_path / name).write_bytes(trap.getvalue())
    assert refused(reader.read, tmp_path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Runs(mark)))
    assert mark.exists()  # it does where it is let
