"""Valid files, changed at random, given to those who read them; run by test_fuzz.py in a process that may die.

``python -m tests.fuzzing READER,READER FIRST LAST FOLDER``: inputs number FIRST to LAST, each of which follows from its
number alone. A reader must end with a value that is whole or with one line for the user
(:class:`~manigeo.errors.ManigeoError`), soon, and in little memory. Prints one line of JSON; the file ``at`` holds the
number of the input that is being read.
"""

import faulthandler
import gzip
import io
import json
import pickle
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd

from manigeo.errors import ManigeoError

MOST_SECONDS = 2.0  # of the processor, for one input; the slowest valid file takes a twentieth
MOST_WAIT = 15.0  # of the clock, after which the process ends
MOST_BYTES = 400 << 20  # more than before the first input; the readers' libraries are loaded by then
ADDRESSES = 8 << 30  # bytes of address space, beyond which memory is refused: claims of 10^12 rows end here
BITS, INTERESTING = 8, (0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 10**12, 2**63 - 1, 2**64 - 1)


def mutated(content: bytes, random: Random) -> bytes:
    """One to four changes: bits flipped, a number put in, bytes cut, put in, doubled, zeroed, or an end that is missing."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(data) + 1) if data else 0
        some = random.choice((1, 2, 4, 8, 64, 512))
        match random.randrange(7):
            case 0 | 1:
                if at < len(data):
                    data[at] ^= 1 << random.randrange(BITS)
            case 2:
                width = random.choice((1, 2, 4, 8))
                number = random.choice(INTERESTING) & (256**width - 1)
                data[at : at + width] = number.to_bytes(width, random.choice(("little", "big")))
            case 3:
                del data[at : at + some]
            case 4:
                data[at:at] = random.choice((random.randbytes(some), bytes(data[at : at + some])))
            case 5:
                data[at : at + some] = bytes(len(data[at : at + some]))
            case _:
                if random.random() < 0.3:
                    del data[at:]
    return bytes(data)


# ------------------------------------------------------------------------------------------------------------ the readers
@dataclass(frozen=True)
class Reader:
    """``contents``: valid files by name, of which one is changed at a time. ``read`` looks at a folder with them all and
    returns what there is to be said of it, which of the valid files is ``truth``: a value that is another is a finding, if
    ``checked`` (that is, if the format has checksums)."""

    contents: Callable[[Path], Mapping[str, bytes]]
    read: Callable[[Path], Any]
    checked: bool = False


def _activations(folder: Path) -> Mapping[str, bytes]:
    from manigeo import create_activations
    from tests.test_activations import CLASSES, LAYERS, grouped_examples, stored, values

    examples = grouped_examples()
    projected = stored("projected", 3, (70,))
    object.__setattr__(projected, "projection", {"seed": 0})  # uncompressed
    layers = [*LAYERS, projected]
    content = {layer.name: values(layer.name, len(examples), layer.n_features) for layer in layers}
    with create_activations(folder / "acts.h5", examples, CLASSES, layers, {"epoch": 3}, batch_size=7) as writer:
        for start in range(0, len(examples), 7):
            writer.append({name: X[start : start + 7] for name, X in content.items()})
    return {"acts.h5": (folder / "acts.h5").read_bytes()}


def read_activations(folder: Path) -> Any:
    from manigeo import open_activations

    with open_activations(folder / "acts.h5") as acts:
        said = [acts.layers, acts.class_names, acts.provenance, acts.kinds, acts.examples.to_csv()]
        for name in acts.layers:
            layer = acts.layer(name)
            said += [layer, acts.rows(name, np.arange(len(acts.examples))).tobytes()]
            said += [X.shape for kind in acts.kinds for X in acts.manifolds(name, kind)]
    return said


def _partial(folder: Path) -> Mapping[str, bytes]:
    from manigeo import create_activations
    from tests.test_activations import CLASSES, LAYERS, grouped_examples, values

    try:
        with create_activations(folder / "acts.h5", grouped_examples(), CLASSES, LAYERS, {}, batch_size=7) as writer:
            writer.append({layer.name: values(layer.name, 7, layer.n_features) for layer in LAYERS})
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return {name: (folder / name).read_bytes() for name in ("acts.h5.partial.commit", "acts.h5.partial")}


def _read_partial(folder: Path) -> Any:
    from manigeo.activations import inspect_activations

    with inspect_activations(folder / "acts.h5") as acts:
        return [acts.rows(name, np.arange(acts.n_done)).tobytes() for name in acts.layers]


def _checkpoints(folder: Path) -> Mapping[str, bytes]:
    import torch

    from manigeo_extract.files.checkpoints import checkpoint_bytes

    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5))
    return {"own.pt": checkpoint_bytes(model, epoch=3, arch="mlp", metrics={"test": {"accuracy": 0.5}})}


def _old_checkpoints(folder: Path) -> Mapping[str, bytes]:
    import safetensors.torch
    import torch

    state = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5)).state_dict()
    old = io.BytesIO()
    torch.save({"state_dict": state}, old, _use_new_zipfile_serialization=False)
    return {"old.pt": old.getvalue(), "a.safetensors": safetensors.torch.save(state)}


def _read_checkpoints(folder: Path) -> Any:
    from manigeo_extract.files.checkpoints import load_checkpoint

    said = []
    for path in sorted(folder.iterdir()):
        checkpoint = load_checkpoint(path)
        tensors = {name: (tuple(t.shape), t.numpy().tobytes()) for name, t in checkpoint.state_dict.items()}
        said.append((checkpoint.epoch, checkpoint.arch, checkpoint.metrics, tensors))
    return said


def results_table() -> pd.DataFrame:
    from manigeo.results import as_table

    return as_table(
        [
            {"run": "r", "epoch": 3, "layer": "h,1", "depth": i, "kind": "test", "manifold": 'a"b', "metric": "capacity",
             "value": 0.1 * i, "stderr": 0.01, "n": 3, "settings": '{"k": 2}', "fingerprint": "ab"}
            for i in range(4)
        ]
    )  # fmt: skip


def _results(folder: Path) -> Mapping[str, bytes]:
    from manigeo.results import write_results

    names = ["a.csv", "a.json"]
    for name in names:
        write_results(results_table(), folder / name)
    return {name: (folder / name).read_bytes() for name in names}


def read_results_again(folder: Path) -> None:
    """What was read can be written, and is then read as the same."""
    from manigeo.results import read_results, write_results

    for path in sorted(folder.glob("a.*")):
        table = read_results(path)
        write_results(table, folder / "again.csv", force=True)
        pd.testing.assert_frame_equal(read_results(folder / "again.csv"), table, check_dtype=False)
        (folder / "again.csv").unlink()


def _data(folder: Path) -> Mapping[str, bytes]:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (20, 3, 4), dtype=np.uint8), np.arange(20, dtype=np.uint8) % 2

    def idx(array: np.ndarray) -> bytes:
        return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()

    def batch(key: bytes) -> bytes:
        colors = rng.integers(0, 255, (20, 3072), dtype=np.uint8)
        return pickle.dumps({b"data": colors, key: labels.tolist(), b"filenames": [b"f"] * 20}, protocol=2)

    archive = io.BytesIO()
    np.savez_compressed(archive, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return {
        "train-images-idx3-ubyte": idx(images),
        "train-labels-idx1-ubyte.gz": gzip.compress(idx(labels)),
        "t10k-images-idx3-ubyte": idx(images),
        "t10k-labels-idx1-ubyte": idx(labels),
        "train": batch(b"fine_labels"),
        "test": batch(b"fine_labels"),
        "meta": pickle.dumps({b"fine_label_names": [b"cat", b"dog"]}, protocol=2),
        "a.npz": archive.getvalue(),
    }


def _read_data(folder: Path) -> None:
    from manigeo_extract.data.datasets import load_data

    for spec in (f"idx:{folder}", f"cifar100:{folder}", f"npz:{folder / 'a.npz'}"):
        data = load_data(spec)
        assert len(data.inputs([0, 1])) == 2
        assert 0 <= data.labels.min() <= data.labels.max() < len(data.class_names)


def _run(folder: Path) -> Mapping[str, bytes]:
    table = pd.DataFrame({"epoch": [0, 6], "kind": "permuted", "accuracy": [0.1, 0.99], "loss": 1.0, "n": 10})
    run = {"arch": "mlp", "data": "glyphs", "permutation": {"fraction": 0.5}, "plan": {"lr": 0.1}}
    done = {"capacity": {"key": "ab", "file": [100, 1763764000]}}
    return {
        "run.json": json.dumps(run).encode(),
        "metrics.csv": table.to_csv(index=False).encode(),
        "steps.json": json.dumps(done).encode(),
        "geometry.csv": results_table().to_csv(index=False).encode(),
    }


def read_run(folder: Path) -> None:
    from manigeo.execution.pipeline import Ledger
    from manigeo.localization.gate import memorized_accuracy
    from manigeo.report import collect_sources
    from manigeo.report.gate import read_gate
    from manigeo.runs import run_tables
    from manigeo_extract.training.recorder import Recorder

    tries: list[Callable[[], Any]] = [
        lambda: [read_gate(run, found.aggregates) for found in [collect_sources([folder])] for run in found.runs],
        lambda: memorized_accuracy(folder),
        lambda: run_tables(folder),
        lambda: Ledger(folder / "steps.json", []),
        lambda: Recorder(folder, resume=True),
    ]
    refused = [error for attempt in tries if (error := _refusal(attempt))]
    if refused:
        raise refused[0]


def _refusal(attempt: Callable[[], Any]) -> ManigeoError | None:
    try:
        attempt()
    except ManigeoError as error:
        return error
    return None


def labels_data() -> Any:
    from manigeo_extract.data.datasets import load_data

    return load_data("digits", {"per_class": 3})


def _labels(folder: Path) -> Mapping[str, bytes]:
    data = labels_data()
    train = data.index[data.rows("train")]
    table = pd.DataFrame({"index": train, "train_label": data.labels[data.rows("train")][::-1], "split": "train"})
    return {"labels.csv": table.to_csv(index=False).encode()}


def read_label_file(folder: Path, data: Any = None) -> None:
    from manigeo_extract.recording.extraction import read_labels

    data = _DATA.setdefault("digits", data or labels_data())
    table = read_labels(folder / "labels.csv", data)
    assert table["train_label"].between(0, 9).all()
    assert len(table) == len(data.labels)
    assert (table["permuted"].dtype, table["train_label"].dtype) == (bool, np.int64)


_DATA: dict[str, Any] = {}
_CONFIGS = {
    "capacity.toml": b'seed = 3\nforce = true\nkappa = 0.1\n"per-class" = 20\nkinds = ["test", "permuted"]\n',
    "train.toml": b'epochs = 3\nlr = 1e-2\narch_args = {depth = 3, norm = [1, 2]}\ndata = "digits"\n[data_args]\n'
    b"per_class = 80\nwhen = 1979-05-27T07:32:00Z\n",
}
_WORDS = {"capacity": ["a.h5"], "train": []}


def read_configs(folder: Path) -> None:
    """Parsing alone: what the words and the file say together."""
    import click

    from manigeo.cli.main import cli

    for path in folder.glob("*.toml"):
        command = cli.get_command(click.Context(cli), path.stem)
        assert command is not None
        try:
            command.make_context(path.stem, [*_WORDS[path.stem], "--config", str(path)])
        except click.UsageError as error:
            raise ManigeoError(error.format_message()) from error


def _examples(folder: Path) -> Mapping[str, bytes]:
    from manigeo.per_example.recorded import Answers, append_epoch, create_record
    from manigeo.per_example.table import example_rows, write_examples

    shown = pd.DataFrame({"index": range(6), "split": "train", "true_label": 0, "train_label": 1, "permuted": True})
    for name in ("examples.record", "examples.csv"):
        (folder / name).unlink(missing_ok=True)
    create_record(folder / "examples.record", "ab12", shown)
    for epoch in (1, 2):
        half = np.full(6, epoch / 4)
        append_epoch(folder / "examples.record", epoch, Answers(half, -half, half, half > 0.3))
    write_examples(
        example_rows(shown, {"margin": np.arange(6.0)}, layer="h1", flag="saturated"), folder / "examples.csv"
    )
    marks = pd.DataFrame({"index": [0, 3], "true_label": 0, "kind": ["memorized", "typical"]})
    found = {name: (folder / name).read_bytes() for name in ("examples.record", "examples.csv")}
    return {**found, "kinds.csv": marks.to_csv(index=False).encode()}


def read_of_examples(folder: Path) -> None:
    from manigeo.per_example.marking import marked
    from manigeo.per_example.recorded import read_record
    from manigeo.per_example.table import read_examples

    shown = pd.DataFrame({"index": range(6), "split": "train", "true_label": 0, "train_label": 1, "permuted": True})
    tries: list[Callable[[], Any]] = [
        lambda: read_record(folder / "examples.record"),
        lambda: read_examples(folder / "examples.csv"),
        lambda: marked(shown, folder / "kinds.csv"),
    ]
    refused = [error for attempt in tries if (error := _refusal(attempt))]
    if refused:
        raise refused[0]


READERS: Mapping[str, Reader] = {
    "activations": Reader(_activations, read_activations, checked=True),
    "partial": Reader(_partial, _read_partial),
    "checkpoints": Reader(_checkpoints, _read_checkpoints, checked=True),
    "old_checkpoints": Reader(_old_checkpoints, _read_checkpoints),
    "results": Reader(_results, read_results_again),
    "data": Reader(_data, _read_data),
    "run": Reader(_run, read_run),
    "labels": Reader(_labels, read_label_file),
    "examples": Reader(_examples, read_of_examples),
    "config": Reader(lambda folder: _CONFIGS, read_configs),
}


# ----------------------------------------------------------------------------------------------------------- the campaign
def campaign(name: str, first: int, last: int, folder: Path) -> dict[str, Any]:
    reader = READERS[name]
    valid = dict(reader.contents(folder))
    _clear(folder, valid)
    truth = reader.read(folder)  # and all that is imported on the way
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    began, before = time.perf_counter(), _peak()
    read = 0
    findings: list[str] = []
    for number in range(first, last):
        (folder.parent / "at").write_text(f"{name} {number}")
        random = Random(f"{name} {number}")
        changed = random.choice(list(valid))
        _clear(folder, valid | {changed: mutated(valid[changed], random)})
        what = f"{name} {number} ({changed}): "
        started = time.process_time()
        faulthandler.dump_traceback_later(MOST_WAIT, exit=True)
        try:
            value = reader.read(folder)
            read += 1
            if reader.checked and value != truth:
                findings.append(what + "another value was read")
        except ManigeoError as error:
            if not _is_one_line(str(error)):
                findings.append(what + f"not one line of text: {str(error)[:500]!r}")
        except BaseException as error:
            findings.append(what + f"{type(error).__name__}: {str(error)[:300]}")
        faulthandler.cancel_dump_traceback_later()  # to make the valid files of the next reader may take longer
        if (took := time.process_time() - started) > MOST_SECONDS:
            findings.append(what + f"took {took:.1f} s")
        if (more := _peak() - before) > MOST_BYTES:
            findings.append(what + f"took {more >> 20} MB")
            before += more
    return {
        "inputs": last - first, "read": read, "findings": findings,
        "seconds": round(time.perf_counter() - began, 1), "megabytes": (_peak() - before) >> 20,
    }  # fmt: skip


def _clear(folder: Path, contents: Mapping[str, bytes]) -> None:
    for path in folder.iterdir():
        if path.name not in contents and path.is_file():
            path.unlink()
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def _is_one_line(text: str) -> bool:
    """What main prints: white space is joined there, so its amount does not matter; a page of text does."""
    return bool(text.strip()) and len(text) < 3000


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    names, first, last, place = sys.argv[1:]
    reports = {}
    for name in names.split(","):
        inside = Path(place) / name
        inside.mkdir(exist_ok=True)
        reports[name] = campaign(name, int(first), int(last), inside)
    print(json.dumps(reports))
