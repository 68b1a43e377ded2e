"""What a file claims is bounded: it is refused in one line, at once, and in little memory."""

import gzip
import io
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from manigeo.activations import StoredLayer, create_activations, open_activations
from manigeo.errors import InputError, UsageError
from manigeo.execution.pipeline import Ledger
from manigeo.runs import RunFolder
from manigeo.storage.ceilings import MOST_PIXELS, open_regular, read_text
from manigeo_extract.data.datasets import load_data
from manigeo_extract.files.checkpoints import checkpoint_bytes, load_checkpoint
from manigeo_extract.models import build_model
from manigeo_extract.opening.networks import open_model
from manigeo_extract.opening.requests import ModelRequest, WeightsRequest
from tests.command_line import run

ARGS = {"input_shape": [1, 8, 8], "n_classes": 10, "width": 8, "depth": 2}


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of images in two classes."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path("images", name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((8, 8), i, dtype=np.uint8)).save(f"images/{name}/{i}.png")
    return Path("images")


# ------------------------------------------------------------------------------------------------------------- images
def test_a_pipe_or_device_among_images_is_refused_and_not_waited_for(images):
    for make in (
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.mkdir(),
    ):
        make(images / "a" / "9.png")
        with pytest.raises(InputError, match=r"images/a/9\.png: expected"):
            load_data("folder:images")
        (images / "a" / "9.png").rmdir() if (images / "a" / "9.png").is_dir() else (images / "a" / "9.png").unlink()


def test_folders_that_are_links_to_each_other_are_read_once(images):
    (images / "a" / "back").symlink_to("..", target_is_directory=True)
    assert len(load_data("folder:images").labels) == 8


def test_an_image_that_is_replaced_by_a_pipe_later_is_refused(images):
    data = load_data("folder:images")
    rows = [i for i in range(8) if data.labels[i] == 0]
    for path in images.glob("a/*.png"):
        path.unlink()
        os.mkfifo(path)
    with pytest.raises(InputError, match="found a folder, a pipe or a device"):
        data.inputs(rows)


def large_png(path: Path, width: int, height: int) -> None:
    """A PNG file of a few bytes that claims to be of this size."""
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize("n_pixels", [MOST_PIXELS + 10_000, 3 * MOST_PIXELS])
def test_an_image_of_too_many_pixels_is_refused(images, n_pixels):
    large_png(images / "b" / "9.png", 10_000, n_pixels // 10_000)
    with pytest.raises(InputError, match=r"b/9\.png: expected an image of at most 89,478,485 pixels"):
        load_data("folder:images", {"size": 8})


@pytest.mark.parametrize("spec", ["folder:images", "digits"])
def test_images_are_resized_to_no_more_pixels_than_that(images, spec):
    with pytest.raises(UsageError, match="expected size in pixels, from 1 to 9459, got 1000000"):
        load_data(spec, {"size": 1_000_000})


# -------------------------------------------------------------------------------------------------------- packed files
def test_a_packed_data_set_is_not_unpacked_beyond_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("manigeo.storage.ceilings.UNPACKED_ANYWAY", 1_000_000)
    x, y = np.zeros((4000, 28, 28), np.uint8), np.zeros(4000, np.uint8)
    np.savez_compressed(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(InputError, match=r"x\.npz: expected .*packed more than 300 times"):
        load_data(f"npz:{tmp_path / 'x.npz'}")
    for prefix in ("train", "t10k"):
        head = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in x.shape)
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + x.tobytes()))
    with pytest.raises(InputError, match="packed 300 times"):
        load_data(f"idx:{tmp_path}")
    assert max(i.file_size / i.compress_size for i in zipfile.ZipFile(tmp_path / "x.npz").infolist()) < 1100


# --------------------------------------------------------------------------------------------------- texts beside results
def test_settings_and_notes_are_read_up_to_their_size_and_from_files_alone(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[1, 2]")
    assert read_text(path, 6) == "[1, 2]"
    with pytest.raises(InputError, match=r"x\.json is too large: expected at most 5e-06 MB"):
        read_text(path, 5)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="expected a file, found"):
            open_regular(other)


@pytest.mark.parametrize(
    "read", [lambda path: RunFolder(path).description(), lambda path: Ledger(path / "run.json", [])]
)
def test_a_run_whose_description_is_a_pipe_or_too_large_is_refused(tmp_path, read):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(InputError, match=r"run\.json"):
        read(tmp_path)
    (tmp_path / "run.json").unlink()
    with open(tmp_path / "run.json", "wb") as file:
        file.truncate(30_000_000)
    with pytest.raises(InputError, match=r"run\.json.* too large: expected at most 20 MB"):
        read(tmp_path)


def test_a_config_file_may_be_a_pipe_of_the_user_and_has_a_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("large.toml").write_text("#" * 1_000_001)
    code, _, err = run("train", "--config", "large.toml", "--dry-run")
    assert code == 2
    assert "large.toml is too large: expected at most 1 MB" in err


# ----------------------------------------------------------------------------------------------------- activation files
def acts_file(path: Path, n_layers: int = 1, n_classes: int = 2, provenance: str = "") -> Path:
    columns = {"index": [0, 1], "split": "test", "true_label": [0, 1], "train_label": [0, 1], "permuted": False}
    layers = [StoredLayer(f"h{i}", i, "Linear", 0, (1,), "flatten", None, ()) for i in range(n_layers)]
    names = list(map(str, range(n_classes)))
    with create_activations(path, pd.DataFrame(columns), names, layers, {"model": provenance}) as writer:
        writer.append({layer.name: np.ones((2, 1)) for layer in layers})
    return path


@pytest.mark.parametrize(
    ("ceiling", "sizes", "message"),
    [
        ("MOST_LAYERS", {"n_layers": 5}, "it has more than 2 layers"),
        ("MOST_CLASSES", {"n_classes": 3}, "it has 3 classes, expected at most 2"),
        ("MOST_PROVENANCE", {"provenance": "x" * 30}, "its provenance has more than 2 characters"),
    ],
)
def test_an_activation_file_beyond_a_ceiling_is_refused_and_none_is_written(
    tmp_path, monkeypatch, ceiling, sizes, message
):
    path = acts_file(tmp_path / "acts.h5", **sizes)
    with open_activations(path) as acts:
        assert len(acts.layers) == sizes.get("n_layers", 1)
    monkeypatch.setattr(f"manigeo.activations.checking.{ceiling}", 2)
    os.utime(path, (1, 1))  # else it is known to be good
    with pytest.raises(InputError, match=message):
        open_activations(path)
    if ceiling != "MOST_PROVENANCE":
        monkeypatch.setattr(f"manigeo.activations.writing.{ceiling}", 2)
        with pytest.raises(UsageError, match="an activation file holds at most 2"):
            acts_file(tmp_path / "more.h5", **sizes)


# ------------------------------------------------------------------------------------------------- networks of a checkpoint
def checkpoint_that_says(path: Path, weights: dict[str, torch.Tensor] | None = None, **args: int) -> Path:
    model = build_model("mlp", ARGS, seed=0)
    content = checkpoint_bytes(model, epoch=1, arch="mlp", arch_args=ARGS | args, data="digits", seed=0)
    found = torch.load(io.BytesIO(content), weights_only=True)
    torch.save(found | ({} if weights is None else {"state_dict": weights}), path)
    return path


@pytest.mark.parametrize("weights", ["checkpoint", "init"])
@pytest.mark.parametrize("no_strict", [False, True])
def test_a_small_checkpoint_that_describes_a_huge_network_is_refused(tmp_path, monkeypatch, weights, no_strict):
    path = checkpoint_that_says(tmp_path / "wide.pt", width=20_000)
    assert load_checkpoint(path).arch == "mlp"
    monkeypatch.setattr("manigeo_extract.files.networks.build_model", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(InputError, match=r"wide\.pt holds .* numbers, and its architecture takes 401,"):
        open_model(path, ModelRequest(weights=WeightsRequest(weights, no_strict=no_strict)))


def test_a_view_of_one_number_does_not_count_as_many(tmp_path):
    shapes = build_model("mlp", ARGS | {"width": 2000}, seed=0).state_dict()
    views = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in shapes.items()}
    with pytest.raises(InputError, match="and its architecture takes 4,"):
        open_model(checkpoint_that_says(tmp_path / "thin.pt", views, width=2000), ModelRequest())


@pytest.mark.parametrize("arch", ["mlp", "resmlp", "vit", "cnn"])
def test_no_network_of_ours_has_more_than_a_thousand_layers_of_a_kind(arch):
    name = "blocks" if arch == "cnn" else "depth"
    with pytest.raises(UsageError, match=f"cannot build {arch}.*{name} must be at most 1000, got 10000000"):
        build_model(arch, {"input_shape": (1, 8, 8), "n_classes": 2, name: 10_000_000})
