"""Files of arrays of other programs: what is read of them, and what is said where they are not what is expected."""

import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from manigeo.activations.foreign import read_arrays
from manigeo.errors import InputError, UsageError
from manigeo.results import read_results
from tests.command_line import done, run

RNG = np.random.default_rng(0)
V1, V4 = RNG.normal(size=(3, 4, 5)), RNG.normal(size=(3, 4, 2))
X, Y = RNG.normal(size=(8, 5)), np.repeat(["cat", "dog"], 4)


def npy(at: Path) -> Path:
    np.save(at / "V1.npy", V1)
    return at / "V1.npy"


def npz(at: Path) -> Path:
    np.savez_compressed(at / "a.npz", V1=V1, labels=["a", "b", "c"])
    return at / "a.npz"


def mat(at: Path) -> Path:
    scipy.io.savemat(at / "a.mat", {"V1": V1, "labels": np.array(["a", "b", "c"], dtype=object)}, do_compression=True)
    return at / "a.mat"


def hdf5(at: Path) -> Path:
    with h5py.File(at / "a.h5", "w") as file:
        file["V1"] = V1
        file["labels"] = ["a", "b", "c"]
    return at / "a.h5"


def matlab73(at: Path) -> Path:
    """As MATLAB writes it: HDF5 behind 512 bytes of its own, dimensions the other way round."""
    with h5py.File(at / "b.mat", "w", userblock_size=512) as file:
        file["V1"] = V1.T
        file["V1"].attrs["MATLAB_class"] = np.bytes_("double")
    with (at / "b.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM")
    return at / "b.mat"


@pytest.mark.parametrize("written", [npy, npz, mat, hdf5, matlab73])
def test_arrays_of_every_format_are_areas_with_their_labels(tmp_path, written):
    path = written(tmp_path)
    acts = read_arrays(path, ["V1"])
    assert acts.layers == ("V1",)
    np.testing.assert_array_equal(np.stack(acts.manifolds("V1", "all")), V1)
    assert acts.class_names == (("0", "1", "2") if written in (npy, matlab73) else ("a", "b", "c"))


def test_rows_of_a_csv_are_examples_with_a_column_of_labels(tmp_path):
    lines = [",".join([*map(repr, map(float, row)), label]) for row, label in zip(X, Y, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d,e,animal", *lines]))
    acts = read_arrays(tmp_path / "t.csv", labels="animal")
    np.testing.assert_array_equal(acts.rows("t", np.arange(8)), X)
    assert acts.class_names == ("cat", "dog")
    with pytest.raises(InputError, match="column 'animal' holds no numbers; it is --labels animal"):
        read_arrays(tmp_path / "t.csv")


def test_labels_may_be_in_another_file(tmp_path):
    np.save(tmp_path / "X.npy", X)
    (tmp_path / "y.txt").write_text("\n".join(Y))
    np.save(tmp_path / "y.npy", np.repeat([3, 5], 4))
    for name, classes in (("y.txt", ("cat", "dog")), ("y.npy", ("3", "5"))):
        assert read_arrays(tmp_path / "X.npy", labels=str(tmp_path / name)).class_names == classes
    with pytest.raises(UsageError, match=r"--labels z is neither in .* nor a file; expected arrays"):
        read_arrays(tmp_path / "X.npy", labels="z")


def test_missing_values_are_left_out_with_a_note(tmp_path):
    broken = V1.copy()
    broken[0, 1, 2] = np.nan
    np.savez(tmp_path / "a.npz", V1=broken, V4=V4)
    acts = read_arrays(tmp_path / "a.npz")
    assert len(acts.examples) == 11
    assert "1 of 12 examples are left out" in acts.notes[0]


def test_a_file_that_does_not_say_enough_is_told_what_is_expected_and_what_it_holds(tmp_path):
    with pytest.raises(
        UsageError, match=r"no activation file.*expected arrays \(cond.*V1 \(3, 4, 5\) float64.*--dataset"
    ):
        read_arrays(hdf5(tmp_path))
    with pytest.raises(UsageError, match=r"--dataset V2 is not in .*the file holds V1 \(3, 4, 5\) float64, labels"):
        read_arrays(hdf5(tmp_path), ["V2"])
    with pytest.raises(InputError, match="labels holds text, expected numbers"):
        read_arrays(hdf5(tmp_path), ["labels"])
    np.save(tmp_path / "X.npy", X)
    with pytest.raises(InputError, match=r"take a label for each example, got none.*the file holds X \(8, 5\)"):
        read_arrays(tmp_path / "X.npy")


def test_claims_are_compared_with_what_is_stored_before_memory_is_asked_for(tmp_path):
    np.save(tmp_path / "a.npy", X)
    whole = (tmp_path / "a.npy").read_bytes()
    claiming = whole.replace(b"(8, 5)", b"(8888888888, 5)")[: len(whole)]
    (tmp_path / "a.npy").write_bytes(claiming)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("V1.npy", claiming)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("V1", (10**6, 10**6), "f4", chunks=(100, 100))
    for name, datasets in (("a.npy", []), ("a.npz", []), ("a.h5", ["V1"])):
        with pytest.raises(InputError, match=r"does not fit into|claims"):
            read_arrays(tmp_path / name, datasets)


def test_pickled_objects_and_damage_are_refused_in_one_line(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", V1=V1, labels=np.array([{}, {}, {}], dtype=object))
    (tmp_path / "d.mat").write_bytes(b"\0" * 200)
    (tmp_path / "d.npz").write_bytes(b"PK\3\4 and no more")
    for name in ("o.npy", "o.npz", "d.mat", "d.npz"):
        with pytest.raises(InputError) as refused:
            read_arrays(tmp_path / name)
        assert "\n" not in str(refused.value)
        assert "extract" not in str(refused.value)


def test_commands_take_a_file_of_arrays(tmp_path):
    path = npz(tmp_path)
    assert "P = 3 classes x M = 4" in done("capacity", path, "--draws", 10, "--no-total-dimension")
    table = read_results(tmp_path / "a.capacity.csv")
    assert set(table["layer"]) == {"V1"}
    done("separability", hdf5(tmp_path), "--dataset", "V1", "--measures", "means", "--folds", 3)
    assert set(read_results(tmp_path / "a.separability.csv")["kind"]) == {"all"}


def test_options_of_arrays_are_refused_for_an_activation_file(tmp_path):
    from tests.test_separations import write

    path = write(tmp_path / "acts.h5")
    code, _, err = run("capacity", path, "--dataset", "V1")
    assert (code, "leave --dataset and --labels out" in err) == (2, True)
