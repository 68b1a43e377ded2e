import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
import pytest

from manigeo import create_activations, open_activations
from manigeo.activations import Activations, StoredLayer, StoredManifolds, reading
from manigeo.activations.reading import _spans
from manigeo.activations.writing import _chunk_rows
from manigeo.errors import InputError, UsageError
from manigeo.kinds import KINDS
from manigeo.manifolds import kind_examples
from tests.test_manifolds import example_table

CLASSES = ("zero", "one", "two")


def grouped_examples():
    return example_table().sort_values("true_label", kind="stable").reset_index(drop=True)


def stored(name: str, order: int, shape: tuple[int, ...]) -> StoredLayer:
    return StoredLayer(name, order, "Linear", 0, shape, "flatten", None, ())


LAYERS = [stored("input", 0, (1, 2, 3)), stored("features.0", 1, (4,)), stored("a/b", 2, (5,))]


def values(name: str, n: int, width: int) -> np.ndarray:
    return np.random.default_rng(len(name)).standard_normal((n, width)).astype(np.float32)


def write(path: Path, *, force: bool = False, batch: int = 7, **changes) -> dict[str, np.ndarray]:
    examples = grouped_examples()
    content = {layer.name: values(layer.name, len(examples), layer.n_features) for layer in LAYERS} | changes
    with create_activations(path, examples, CLASSES, LAYERS, {"epoch": 3, "argv": ["x"]}, force=force) as writer:
        for start in range(0, len(examples), batch):
            writer.append({name: X[start : start + batch] for name, X in content.items()})
    return content


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "acts.h5")
    return tmp_path / "acts.h5"


def test_what_was_written_is_read(path):
    content = write(path, force=True)
    with open_activations(path) as acts:
        assert acts.layers == ("input", "features.0", "a/b")
        assert acts.kinds == KINDS
        assert acts.class_names == CLASSES
        assert acts.provenance["epoch"] == 3
        assert acts.layer("input").feature_shape == (1, 2, 3)
        assert acts.examples.equals(grouped_examples())
        for name, X in content.items():
            np.testing.assert_array_equal(acts.rows(name, np.arange(len(X))), X)


def test_manifolds_are_the_rows_of_each_class_under_the_kinds_label(path):
    content = write(path, force=True)
    with open_activations(path) as acts:
        for kind in KINDS:
            rows, labels = kind_examples(acts.examples, kind)
            clouds = acts.manifolds("features.0", kind)
            assert len(clouds) == 3
            for label, cloud in enumerate(clouds):
                np.testing.assert_array_equal(cloud, content["features.0"][rows[labels == label]])


def test_every_layer_is_sampled_at_the_same_examples(path):
    position = np.arange(len(grouped_examples()), dtype=np.float32)[:, None]
    write(
        path,
        force=True,
        **{"features.0": position + np.zeros((1, 4), np.float32), "a/b": position + np.zeros((1, 5), np.float32)},
    )
    with open_activations(path) as acts:
        first = [cloud[:, 0].tolist() for cloud in acts.manifolds("features.0", "permuted", per_class=3, seed=1)]
        second = [cloud[:, 0].tolist() for cloud in acts.manifolds("a/b", "permuted", per_class=3, seed=1)]
    assert first == second
    assert [len(cloud) for cloud in first] == [3, 3, 3]


def test_rows_come_in_the_order_they_were_asked_for(path):
    content = write(path, force=True)
    rows = np.array([40, 2, 17, 2, 0])
    with open_activations(path) as acts:
        np.testing.assert_array_equal(acts.rows("a/b", rows), content["a/b"][rows])


def test_layers_are_stored_in_whole_rows_compressed_and_checksummed(path):
    with h5py.File(path) as file:
        dataset = file["layers/features.0"]
        assert dataset.chunks[1] == 4
        assert (dataset.compression, dataset.compression_opts, dataset.shuffle, dataset.fletcher32) == (
            "gzip",
            1,
            True,
            True,
        )
        assert (file.attrs["format"], file.attrs["format_version"], bool(file.attrs["complete"])) == (
            "manigeo-activations", 1, True,
        )  # fmt: skip
        assert set(dataset.attrs) >= {"order", "module_class", "call_index", "feature_shape", "readout", "projection"}


def test_a_wide_layer_is_chunked_by_256_kib_so_that_scattered_rows_waste_little(tmp_path):
    wide = [stored("wide", 0, (65536,))]
    examples = grouped_examples()
    with create_activations(tmp_path / "a.h5", examples, CLASSES, wide, {}) as writer:
        writer.append({"wide": np.zeros((len(examples), 65536), np.float32)})
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["layers/wide"].chunks == (1, 65536)


def test_an_existing_file_is_not_overwritten_without_force(path):
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"acts\.h5 exists: give another --out, or --force"):
        write(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_extraction_leaves_nothing_behind_and_an_old_file_whole(path, error):
    before = path.read_bytes()
    with pytest.raises(error), create_activations(path, grouped_examples(), CLASSES, LAYERS, {}, force=True):
        raise error
    assert os.listdir(path.parent) == ["acts.h5"]
    assert path.read_bytes() == before


def test_a_layer_and_one_below_it_by_name_cannot_be_stored_together(tmp_path):
    clashing = create_activations(
        tmp_path / "a.h5", grouped_examples(), CLASSES, [stored("a", 0, (2,)), stored("a/b", 1, (2,))], {}
    )
    with pytest.raises(UsageError, match="cannot be stored together"), clashing:
        pass
    assert os.listdir(tmp_path) == []


def test_missing_rows_are_an_error_and_no_file(tmp_path):
    nothing = create_activations(tmp_path / "a.h5", grouped_examples(), CLASSES, LAYERS, {})
    with pytest.raises(ValueError, match="0 of 51 examples were written"), nothing:
        pass
    assert os.listdir(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from manigeo import create_activations
from tests.test_activations import CLASSES, LAYERS, grouped_examples, values
with create_activations(Path(sys.argv[1]), grouped_examples(), CLASSES, LAYERS, {}) as writer:
    writer.append({layer.name: values(layer.name, 7, layer.n_features) for layer in LAYERS})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_a_partial_file_that_is_said_to_be_unfinished(tmp_path):
    root = Path(__file__).resolve().parents[1]
    target = tmp_path / "acts.h5"
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], cwd=root, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert sorted(os.listdir(tmp_path)) == ["acts.h5.partial", "acts.h5.partial.commit"]
    with pytest.raises(InputError, match="unfinished extraction"), open_activations(target):
        pass
    (tmp_path / "acts.h5.partial").rename(target)  # what was flushed can be opened, and is refused as incomplete
    with pytest.raises(InputError, match=r"incomplete|cannot be opened"), open_activations(target):
        pass


def change_header(name, value):
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value

    return change


def relabel(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["examples/train_label"][0] = 2


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_examples(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["examples"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_header("format_version", 2), "format version 2, this program reads version 1"),
        (change_header("format", "anndata"), "format 'manigeo-activations' was expected, found 'anndata'"),
        (change_header("complete", False), "is incomplete"),
        (change_header("provenance", '{"epoch": 4}'), "fingerprint .* does not match"),
        (change_header("provenance", "{"), "is damaged"),
        (relabel, "fingerprint .* does not match"),
        (truncate, "cannot be opened as HDF5"),
        (remove_examples, "is damaged"),
        (lambda path: path.write_text("layer,capacity"), "is a file of another program, expected an activation file"),
        (Path.unlink, "does not exist; write it with manigeo extract"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_with_what_was_found(path, damage, message):
    damage(path)
    with pytest.raises(InputError, match=message), open_activations(path):
        pass


def test_a_file_is_verified_once_by_a_process_and_again_when_it_has_changed(path, monkeypatch):
    verified = []
    for name in ("check_heaps", "check_header", "check_chunks"):
        check = getattr(reading, name)
        monkeypatch.setattr(reading, name, lambda *args, n=name, c=check: (verified.append(n), c(*args))[1])

    def opened() -> None:
        with open_activations(path) as acts:
            acts.rows("input", np.arange(2))
            acts.rows("input", np.arange(2))

    whole = ["check_heaps", "check_header", "check_chunks"]
    opened()
    opened()
    assert verified == whole * 2  # written just now: it may change within a tick of the clock
    os.utime(path, ns=(0, 10**18))
    opened()
    opened()
    assert verified == whole * 3
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(0, 10**18 + 1))
    opened()
    assert verified == whole * 4
    with h5py.File(path, "r+") as file:
        file.attrs["fingerprint"] = "0" * 64
    os.utime(path, ns=(0, 10**18 + 2))
    with pytest.raises(InputError, match="was changed after it was written"):
        opened()


def test_a_flipped_bit_in_the_activations_is_an_error_and_not_a_number(path):
    with h5py.File(path) as file:
        start = file["layers/features.0"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[start + 20] ^= 1
    path.write_bytes(content)
    with open_activations(path) as acts, pytest.raises(InputError, match=r"layer 'features\.0' cannot be read"):
        acts.rows("features.0", np.arange(5))


def test_nan_activations_are_refused_by_layer_name(path):
    write(path, force=True, **{"a/b": np.full((51, 5), np.nan, np.float32)})
    with open_activations(path) as acts, pytest.raises(InputError, match="layer 'a/b' holds NaN"):
        acts.manifolds("a/b", "test")


def test_an_unknown_layer_is_refused_with_those_there_are(path):
    with (
        open_activations(path) as acts,
        pytest.raises(UsageError, match=r"no layer 'fc'; it has input, features\.0, a/b"),
    ):
        acts.manifolds("fc", "test")


def test_the_fingerprint_is_that_of_the_content_and_not_of_the_command(tmp_path):
    prints = []
    for name, provenance in (
        ("a", {"epoch": 3, "argv": ["a"]}),
        ("b", {"epoch": 3, "argv": ["b"]}),
        ("c", {"epoch": 4}),
    ):
        examples = grouped_examples()
        with create_activations(tmp_path / name, examples, CLASSES, LAYERS, provenance) as writer:
            writer.append({layer.name: values(layer.name, len(examples), layer.n_features) for layer in LAYERS})
        with open_activations(tmp_path / name) as acts:
            prints.append(acts.fingerprint)
    assert prints[0] == prints[1] != prints[2]


# ---------------------------------------------------------------------------------------------- size, type, dimensions
@pytest.mark.parametrize(
    ("row_bytes", "batch_size", "rows"),
    [
        (4, None, 5000),
        (20_000, None, 13),
        (20_000, 256, 8),  # 13 would fit; 8 divide the batch
        (40, 256, 256),
        (262_144, 256, 1),
        (1_000_000, 256, 1),
        (40, 257, 257),
        (20_000, 257, 13),  # nothing divides a prime
        (40, 1, 1),
    ],
)
def test_chunks_are_even_shares_of_a_batch_so_that_each_is_written_once(row_bytes, batch_size, rows):
    assert _chunk_rows(row_bytes, 5000, batch_size) == rows


def test_batches_of_the_stated_size_leave_no_holes_in_the_file(tmp_path):
    examples = grouped_examples()
    layers = [stored("h", 0, (3000,))]
    X = np.random.default_rng(0).standard_normal((51, 3000)).astype(np.float32)
    sizes = {}
    for batch in (17, 51):
        with create_activations(tmp_path / f"{batch}.h5", examples, CLASSES, layers, {}, batch_size=17) as writer:
            for start in range(0, 51, batch):
                writer.append({"h": X[start : start + batch]})
        sizes[batch] = (tmp_path / f"{batch}.h5").stat().st_size
    assert abs(sizes[17] - sizes[51]) < 20_000  # indices; a chunk has 200 kB


def test_dimensions_have_names(path):
    with h5py.File(path) as file:
        names = {name: [d.values()[0].name for d in file["layers"][name].dims] for name in ("input", "a/b")}
        assert names == {"input": ["/example", "/features_6"], "a/b": ["/example", "/features_5"]}
        assert all(file["examples"][column].dims[0].values()[0].name == "/example" for column in file["examples"])
        assert file["classes"].dims[0].values()[0].name == "/class"
        assert file["example"].id.get_storage_size() == 0  # a name, and no values


def test_xarray_reads_the_file_by_name(path):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
    content = write(path, force=True)
    with xarray.open_dataset(path, engine="h5netcdf", group="layers") as layers:
        assert layers["features.0"].dims == ("example", "features_4")
        np.testing.assert_array_equal(layers["input"].values, content["input"])
    with xarray.open_dataset(path, engine="h5netcdf", group="examples") as examples:
        assert examples["true_label"].dims == ("example",)
        assert examples.to_dataframe()["split"].tolist() == grouped_examples()["split"].tolist()


def test_half_precision_is_what_numpy_makes_of_it(tmp_path):
    examples = grouped_examples()
    content = {layer.name: values(layer.name, len(examples), layer.n_features) for layer in LAYERS}
    with create_activations(tmp_path / "a.h5", examples, CLASSES, LAYERS, {}, dtype="float16") as writer:
        writer.append(content)
    with open_activations(tmp_path / "a.h5") as acts:
        for name, X in content.items():
            np.testing.assert_array_equal(acts.rows(name, np.arange(51)), X.astype(np.float16))


@pytest.mark.parametrize(("value", "holds"), [(65504, True), (65505, False), (6.2e-5, True), (6e-5, False), (0, True)])
def test_a_layer_that_half_precision_cannot_hold_is_refused(tmp_path, value, holds):
    examples = grouped_examples()
    content = {layer.name: np.full((51, layer.n_features), value, np.float32) for layer in LAYERS}
    with (
        nullcontext() if holds else pytest.raises(InputError, match=r"layer 'input' reaches .*: store float32"),
        create_activations(tmp_path / "a.h5", examples, CLASSES, LAYERS, {}, dtype="float16") as writer,
    ):
        writer.append(content)
    assert (tmp_path / "a.h5").exists() == holds


def test_one_small_batch_among_others_is_rounded(tmp_path):
    examples = grouped_examples()
    content = {layer.name: np.ones((51, layer.n_features), np.float32) for layer in LAYERS}
    with create_activations(tmp_path / "a.h5", examples, CLASSES, LAYERS, {}, dtype="float16") as writer:
        writer.append({name: X[:50] for name, X in content.items()})
        writer.append({name: X[50:] * np.float32(1e-6) for name, X in content.items()})
    with open_activations(tmp_path / "a.h5") as acts:
        assert acts.rows("a/b", np.array([50]))[0, 0] == np.float16(1e-6)


def test_another_type_of_numbers_is_refused(tmp_path):
    with pytest.raises(UsageError, match="stored as float32 or float16, got 'int8'"):
        create_activations(tmp_path / "a.h5", grouped_examples(), CLASSES, LAYERS, {}, dtype="int8").__enter__()


def test_a_file_of_before_dimensions_had_names_is_read(path):
    with h5py.File(path, "r+") as file:
        for dataset in [*file["examples"].values(), *(file["layers"][layer.name] for layer in LAYERS), file["classes"]]:
            del dataset.attrs["DIMENSION_LIST"]
        for name in ("example", "class", *(f"features_{n}" for n in (4, 5, 6))):
            del file[name]
        del file.attrs["n_done"]
    with open_activations(path) as acts:
        assert acts.n_done == 51
        assert acts.layers == ("input", "features.0", "a/b")


# ------------------------------------------------------------------------------------- layers that do not fit in memory
@pytest.fixture
def narrow(monkeypatch):
    """Two manifolds of the layer "a/b" (six rows of 20 bytes) fit a batch, all of them are too much to hold."""
    monkeypatch.setattr("manigeo.activations.content.HELD_BYTES", 100)
    monkeypatch.setattr("manigeo.activations.streaming._BATCH_BYTES", 240)


@pytest.mark.parametrize("kind", KINDS)
def test_manifolds_that_stay_in_the_file_are_the_same_manifolds(path, monkeypatch, kind):
    with open_activations(path) as acts:
        held = acts.manifolds("a/b", kind, per_class=5, seed=2)
        for batch in (1, 100, 240, 10_000):
            monkeypatch.setattr("manigeo.activations.content.HELD_BYTES", 100)
            monkeypatch.setattr("manigeo.activations.streaming._BATCH_BYTES", batch)
            stored = acts.manifolds("a/b", kind, per_class=5, seed=2)
            assert isinstance(stored, StoredManifolds)
            assert len(stored) == len(held)
            for one, other in zip(stored, held, strict=True):
                np.testing.assert_array_equal(one, other)
            np.testing.assert_array_equal(stored[-1], held[2])
            assert [X.shape for X in stored[1:]] == [(5, 5), (5, 5)]
            with pytest.raises(IndexError):
                stored[3]


def test_a_walk_through_reads_each_row_once_a_batch_ahead(path, monkeypatch, narrow):
    read = []
    rows = Activations.rows
    monkeypatch.setattr(
        Activations, "rows", lambda self, layer, wanted: read.append(len(wanted)) or rows(self, layer, wanted)
    )
    with open_activations(path) as acts:
        stored = acts.manifolds("a/b", "permuted")
        assert stored.shapes == [(6, 5)] * 3
        assert not read
        for X in stored:
            assert X.base.nbytes <= 240
        assert read == [12, 6]
        for _ in stored:
            pass
        assert read == [12, 6, 12, 6]


def test_the_next_batch_is_read_while_the_first_is_looked_at(path, monkeypatch, narrow):
    rows, began = Activations.rows, threading.Event()

    def read(self, layer, wanted):
        if len(wanted) == 6:
            began.set()
        return rows(self, layer, wanted)

    monkeypatch.setattr(Activations, "rows", read)
    with open_activations(path) as acts:
        assert len(acts.manifolds("a/b", "permuted")[0]) == 6
        assert began.wait(timeout=30)


def test_a_file_may_be_closed_while_its_next_batch_is_read(path, narrow):
    for _ in range(20):
        with open_activations(path) as acts:
            first = acts.manifolds("a/b", "permuted")[0]
        assert first.shape == (6, 5)


def test_only_chunks_with_wanted_rows_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("manigeo.activations.writing._CHUNK_BYTES", 100)  # five rows of "a/b"
    content = write(tmp_path / "a.h5")
    with open_activations(tmp_path / "a.h5") as acts:
        rows = np.array([3, 24, 50, 4, 31])
        spans = list(_spans(np.sort(rows), acts.source._file["layers/a/b"]))
        assert spans == [(0, 5), (20, 25), (30, 35), (50, 51)]
        np.testing.assert_array_equal(acts.rows("a/b", rows), content["a/b"][rows])
        monkeypatch.setattr("manigeo.activations.reading._READ_BYTES", 200)  # two chunks at a time
        assert list(_spans(np.arange(51), acts.source._file["layers/a/b"]))[:2] == [(0, 10), (10, 20)]
        np.testing.assert_array_equal(acts.rows("a/b", np.arange(51)), content["a/b"])


def test_manifolds_that_stay_in_the_file_need_it_open(path, narrow):
    with open_activations(path) as acts:
        stored = acts.manifolds("a/b", "test")
    with pytest.raises(ValueError, match="is closed; use its manifolds while it is open"):
        stored[0]


def test_bad_rows_of_manifolds_that_stay_in_the_file_are_refused_when_they_are_read(path, narrow):
    bad = values("a/b", 51, 5)
    bad[-1] = np.nan  # a test example of the last class
    write(path, force=True, **{"a/b": bad})
    with open_activations(path) as acts:
        stored = acts.manifolds("a/b", "test")
        assert len(stored[0]) == 5
        with pytest.raises(InputError, match="layer 'a/b' holds NaN"):
            stored[2]


def test_a_file_may_be_opened_without_a_with(path):
    acts = open_activations(path)
    clouds = acts.manifolds("features.0", "test")
    assert repr(acts).startswith(f"<Activations {str(path)!r}: 3 layers, 51 examples of ")
    acts.close()
    assert repr(acts).endswith("(unpermuted, permuted, restored, test), closed>")
    with pytest.raises(ValueError, match="is closed; use its manifolds while it is open"):
        acts.manifolds("features.0", "test")
    acts.close()  # again does no harm
    with open_activations(path) as again:
        np.testing.assert_array_equal(np.concatenate(again.manifolds("features.0", "test")), np.concatenate(clouds))
        assert "closed" not in repr(again)
    assert repr(again).endswith("closed>")


def test_a_file_is_closed_when_nothing_refers_to_it(path):
    acts = open_activations(path)
    file, seen = acts.source._file, weakref.ref(acts)
    del acts
    gc.collect()
    assert seen() is None
    assert not file


def test_a_file_that_is_refused_is_closed(path, monkeypatch):
    opened, real = [], reading._opened
    monkeypatch.setattr(reading, "_opened", lambda source: opened.append(real(source)) or opened[-1])
    monkeypatch.setattr(reading, "_check_complete", lambda path, activations: activations.layer("no such layer"))
    with pytest.raises(UsageError, match="no such layer") as caught:
        open_activations(path)
    assert caught.tb  # which holds the frame that opened it, so that nothing but closing closes it
    assert not opened[0]


def test_manifolds_that_stay_in_a_file_keep_it_open(path, monkeypatch):
    monkeypatch.setattr("manigeo.activations.content.HELD_BYTES", 0)
    clouds = open_activations(path).manifolds("features.0", "test")
    gc.collect()
    assert [X.shape for X in clouds] == clouds.shapes
