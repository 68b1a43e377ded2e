"""Processes that are killed while they write an activation file, and others that go on; run by test_interruptions.py.

``python -m tests.killing moments FOLDER N``: N kills at random moments; ``calls FOLDER``: one kill at each call that
changes a file. Children are forks, which need no imports. Prints one line of JSON.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from manigeo import activations, create_activations, open_activations
from manigeo.activations import writing
from manigeo.errors import InputError
from manigeo.storage import commits
from tests.test_activations import CLASSES, grouped_examples, stored

LAYERS = [stored("input", 0, (40,)), stored("features.0", 1, (3000,)), stored("logits", 2, (10,))]
EXAMPLES = grouped_examples()
ROWS = {
    layer.name: np.random.default_rng(layer.order).standard_normal((len(EXAMPLES), layer.n_features), dtype=np.float32)
    for layer in LAYERS
}
CHANGES = ("pwrite", "ftruncate", "fsync", "replace", "unlink")


def write(path: Path, batch: int = 5) -> None:
    with create_activations(
        path, EXAMPLES, CLASSES, LAYERS, {"epoch": 3}, batch_size=batch, resume=True, force=True
    ) as writer:
        for start in range(writer.n_done, len(EXAMPLES), batch):
            writer.append({name: rows[start : start + batch] for name, rows in ROWS.items()})


def content(path: Path) -> bytes:
    """The bytes of the file, but the time at which it was begun."""
    with h5py.File(path) as file:
        created = str(file.attrs["created"])
    return path.read_bytes().replace(created.encode(), b"-" * len(created))


def in_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child


def check_no_whole_file(path: Path) -> int:
    """Nothing is there that passes for complete; how many examples are."""
    try:
        with open_activations(path):
            raise AssertionError(f"{path} is taken for complete")
    except InputError:
        pass
    partial, renamed = commits.partial_of(path), path.with_suffix(".renamed")
    if not commits.has_commit(partial):
        return 0
    shutil.copy(partial, renamed)  # by a user who does not know: what says it is complete is so without its note
    try:
        with open_activations(renamed) as acts:
            check_rows(acts, len(EXAMPLES))
    except InputError:
        pass
    renamed.unlink()
    with activations.inspect_activations(path) as acts:
        assert not acts.complete or acts.n_done == len(EXAMPLES)
        check_rows(acts, acts.n_done)
        return acts.n_done


def check_rows(acts: activations.Activations, n: int) -> None:
    for name in acts.layers:
        np.testing.assert_array_equal(acts.rows(name, np.arange(n)), ROWS[name][:n])


def moments(folder: Path, kills: int) -> dict[str, object]:
    """Kill at random moments, several times on the way to one file; compare each file with that of one quiet run."""
    writing._COMMIT_SECONDS = 0.0  # after each batch
    began = time.perf_counter()
    write(folder / "quiet.h5")
    duration, rng = time.perf_counter() - began, random.Random(0)
    killed, progress, files = 0, [], 0
    while killed < kills:
        path = folder / f"{files}.h5"
        while not path.exists():
            child = in_child(lambda path=path: write(path))
            time.sleep(rng.uniform(0, duration))
            os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] != 0:
                killed += 1
                if not path.exists():  # killed before the very last step
                    progress.append(check_no_whole_file(path))
        with open_activations(path):
            assert content(path) == content(folder / "quiet.h5")
        files += 1
    return {"kills": killed, "files": files, "progress": progress}


def calls(folder: Path) -> dict[str, object]:
    """Kill at the first, second, ... call that changes a file, half done where it writes; go on, and compare."""
    os.fsync = lambda fd: None
    writing._COMMIT_SECONDS = float("inf")  # all at the end, where most can go wrong
    write(folder / "quiet.h5", 20)
    path = folder / "killed.h5"
    for n in itertools.count():
        if os.waitpid(in_child(lambda n=n: (_kill_at(n), write(path, 20))), 0)[1] == 0:
            return {"kills": n}
        if not path.exists():
            check_no_whole_file(path)
        write(path, 20)
        assert content(path) == content(folder / "quiet.h5"), n
        assert sorted(os.listdir(folder)) == ["killed.h5", "quiet.h5"], n
        path.unlink()
    raise AssertionError("a writer ends")


def _kill_at(n: int) -> None:
    left = [n]

    def deadly(change: Callable[..., object]) -> Callable[..., object]:
        def changed(*args: object, **settings: object) -> object:
            if left[0] == 0:
                if change.__name__ == "pwrite":
                    change(args[0], bytes(args[1])[: len(args[1]) // 2], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return change(*args, **settings)

        return changed

    for name in CHANGES:
        setattr(os, name, deadly(getattr(os, name)))


if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(moments(folder, int(sys.argv[3])) if what == "moments" else calls(folder)))
