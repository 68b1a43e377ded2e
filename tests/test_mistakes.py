"""Plausible mistakes, each answered in one line with a remedy; where the remedy is a command, it works."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from manigeo import create_activations, write_results
from manigeo.activations import StoredLayer
from manigeo.results import as_table
from manigeo_extract.data.datasets import Permutation, load_data
from manigeo_extract.models import mlp
from manigeo_extract.training.recorder import Recorder
from tests.command_line import done, run
from tests.model_files import saved

LAST = "run/checkpoints/last.pt"
ARGS = {"input_shape": [1, 8, 8], "n_classes": 10, "depth": 2, "width": 8}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder as a user has it: a run, activations, a table, and files of other programs. Nothing is trained."""
    folder, here = tmp_path_factory.mktemp("desk"), os.getcwd()
    os.chdir(folder)
    try:
        data = load_data("digits", {"per_class": 12})
        recorder = Recorder("run", arch="mlp", arch_args=ARGS, data=data.spec, data_args=data.args, seed=0, epochs=(0, 1),
                            data_fingerprint=data.fingerprint, permutation=Permutation(0.5))  # fmt: skip
        for epoch in range(3):
            recorder.step(mlp(**ARGS), epoch, {"validation": {"accuracy": 0.1 * epoch, "loss": 1.0, "n": 9}})
        labels = np.repeat(range(4), 12)
        columns = {"index": range(48), "split": "train", "true_label": labels, "permuted": np.tile([False, True], 24)}
        examples = pd.DataFrame(columns).assign(train_label=lambda e: np.where(e.permuted, (labels + 1) % 4, labels))
        layers = [StoredLayer(name, i, "Linear", 0, (5,), "flatten", None, ()) for i, name in enumerate(("h1", "h2"))]
        with create_activations("acts.h5", examples, list("abcd"), layers, {}) as writer:
            writer.append({layer.name: np.random.default_rng(0).standard_normal((48, 5)) for layer in layers})
        row = {"checkpoint": "last", "kind": "permuted", "metric": "capacity", "settings": "{}"}
        write_results(
            as_table([row | {"layer": f"h{i}", "depth": i, "value": 0.2 * i} for i in (1, 2)]), "acts.capacity.csv"
        )
        Path("w.pt").write_bytes(saved({"a.weight": torch.zeros(3, 64)}))
        Path("pickled.pt").write_bytes(saved({"model": torch.nn.Linear(3, 2)}))
        Path("images/cat").mkdir(parents=True)
        for name, text in {"notes.txt": "hello", "empty.csv": "", "other.csv": "a,b\n1,2\n", "bad.toml": "hello",
                           "unknown.toml": "drows = 3", "labels.csv": "index,train_label\n0,99\n"}.items():  # fmt: skip
            Path(name).write_text(text)
        np.save("x.npy", np.zeros((4, 3)))
        Path("cut.h5").write_bytes(Path("acts.h5").read_bytes()[:300])
        yield folder
    finally:
        os.chdir(here)


# what was typed | a part of what is said | a command that the message leads to, and that works (or nothing)
MISTAKES = """
capcity acts.h5 | did you mean capacity? | capacity acts.h5 --dry-run
Extract --model LAST | did you mean extract? | extract --model LAST --dry-run
help | see manigeo --help | --help
--versoin | Did you mean '--version'? | --version
capacity -help | did you mean --help? | capacity --help
extract | give --model FILE |
extract LAST | manigeo extract --model LAST | layers --model LAST
extract --model run | give one of those in it: checkpoints/best.pt | layers --model run/checkpoints/best.pt
extract --model acts.h5 --out new.h5 | is an activation file of manigeo extract, expected a checkpoint |
extract --model acts.capacity.csv | is a results table |
extract --model run/checkpoints/lst.pt | did you mean LAST | layers --model LAST
extract --model LAST --layers h9 | there are: input, |
extract --model LAST --layer h1 | did you mean --layers |
extract --model LAST --readout man | did you mean 'mean'? |
extract --model LAST --out acts.csv | --out acts.h5 |
extract --model LAST --device gpu | cuda |
extract --model LAST --permute 30 | from 0 to 1 |
extract --model LAST --out no/acts.h5 --per-class 5 | make it first |
extract --model LAST --labels labels.csv | labels.csv |
extract --model LAST --arch-arg depth | expected KEY=VALUE |
extract --model w.pt | give --data |
extract --model w.pt --arch mlpp --data digits | did you mean 'mlp' |
extract --model w.pt --arch mlp --data digits | is this the architecture it was saved from? |
extract --model w.pt --arch no.py:net --data digits | no file 'no.py' |
extract --model w.pt --arch mlp --data folder:nowhere | check the path |
extract --model pickled.pt --data digits | give --trust, if you trust who wrote it |
capacity acts.capacity.csv | manigeo plot acts.capacity.csv | plot acts.capacity.csv --force
capacity run | manigeo analyze run | analyze run --dry-run
capacity LAST | manigeo extract --model LAST | layers --model LAST
capacity missing.h5 | write it with manigeo extract |
capacity cut.h5 | extract it again |
capacity acts.h5 --layers h1,h2 | --layers once for each | capacity acts.h5 --layers h1 --layers h2 --dry-run
capacity acts.h5 --kinds restored,permuted | once for each | capacity acts.h5 --kinds restored --kinds permuted --dry-run
capacity acts.h5 --kinds test | it has unpermuted, permuted |
capacity acts.h5 --kind permuted | did you mean --kinds | capacity acts.h5 --kinds permuted --dry-run
capacity acts.h5 --each | it is an option of manigeo rewind | rewind --help
capacity acts.h5 --per-class 100 | class 'a' has 6 |
capacity acts.h5 --classes 99 | between 2 and 4 |
capacity acts.h5 --jobs 0 | -1 for one per core | capacity acts.h5 --jobs -1 --dry-run
capacity acts.h5 --bootstrap 10 | 100 resamples or more, e.g. 1000 | capacity acts.h5 --bootstrap 1000 --dry-run
capacity acts.h5 --out out.xls | .csv, .json, .parquet |
capacity acts.h5 acts.h5 | run it once for each |
capacity acts.h5 --config bad.toml | is not a TOML file |
capacity acts.h5 --config unknown.toml | which this command does not have |
separability acts.h5 --measures probes | 'probe', 'neighbours' | separability acts.h5 --measures means --dry-run
separability acts.h5 acts.h5 | name each checkpoint's once |
similarity acts.h5 | give two activation files |
similarity acts.h5 acts.h5 | are the same activations |
info acts.capacity.csv | manigeo plot acts.capacity.csv |
merge acts.h5 --out new.h5 | it is whole |
examples run | expected an activation file of manigeo extract | analyze run --dry-run
examples acts.h5 --layers h9 | acts.h5 has h1, h2 |
examples acts.h5 --measures dept | 'depth', 'margin', 'dynamics' | examples acts.h5 --measures depth --k 5 --dry-run
examples acts.h5 --run run | no record of examples | train --data digits --record-examples all --dry-run
channels acts.h5 | expected the folder of a run | capacity acts.h5 --dry-run
suffixes --model run/checkpoints/last.pt | no sequences of tokens: give a text (--data text:PATH) |
lens --model run/checkpoints/last.pt | --utilisation puts a trained probe on each | reinit run --utilisation --dry-run
channels run --kinds tset | 'permuted', 'unpermuted', 'test' |
memorization run | --subset 0.7 | train --data digits --subset 0.7 --record-examples last --dry-run
plot acts.h5 | manigeo capacity acts.h5 makes results of it | capacity acts.h5 --dry-run
plot LAST | manigeo analyze LAST | analyze LAST --dry-run
plot other.csv | expected what manigeo capacity writes |
plot empty.csv | is an empty file |
plot notes.txt | expected a results table |
plot acts.capacity.csv --figure weights | make it with manigeo weights | weights run --dry-run
plot acts.capacity.csv --out a.gif | .png |
report missing | expected the folder of a run |
report images | manigeo analyze |
report acts.h5 | manigeo capacity acts.h5 |
report acts.capacity.csv --out page.pdf | .html |
localize run | manigeo analyze |
localize LAST | manigeo analyze LAST | analyze LAST --dry-run
rewind LAST | expected the folder of a run | rewind run --checkpoints init --dry-run
rewind acts.h5 | expected the folder of a run |
rewind images | holds no checkpoints |
rewind run --checkpoints epoch-5 | did you mean 'epoch-0001' | rewind run --checkpoints epoch-0001 --dry-run
rewind run --layers h9 | there are: h1.linear | rewind run --checkpoints 1 --layers h1.linear --dry-run
weights LAST | or a run | weights run --dry-run
correlate images | is not the folder of a run |
train --data mnist | there are: glyphs, digits |
train --arch resnet | did you mean 'resnet18' |
train --data sentences --arch mlp --dry-run | give a causal language model | train --data sentences --arch gpt --dry-run
train --data sentences --permute 0.5 | plant canaries | train --data sentences --canaries 50,24,10 --dry-run
train --data sentences --canaries 9,99,3 | not than the sequences of 32 | train --data sentences --canaries 9,32,3 --dry-run
train --data sentences --canaries 9,3 | number, length and repeats | train --data sentences --canaries 50,32,10 --dry-run
train --data sentences --tied-dropout .2,.1 | leave it out | train --data sentences --dry-run
train --data digits | --resume continues it |
train --data digits --canaries 4,20,3 --dry-run | one of text, sentences | train --data sentences --canaries 9,32,3 --dry-run
train --resume --force | give one of them |
analyze missing | expected the folder of a run, or a checkpoint |
analyze run --skip extrct | the steps are extract |
analyze run --checkpoints middle | there are: best, epoch-0000 |
analyze acts.h5 | is an activation file |
sweep missing.toml | wang2022 | sweep wang2022 --show
benchmark --cases nothing | manigeo benchmark --dry-run lists all (71 cases) | benchmark --dry-run
demo --data cifar10 | 'glyphs', 'digits' |
"""
ROWS = [[part.strip() for part in line.replace("LAST", LAST).split("|")] for line in MISTAKES.strip().splitlines()]
BARE = re.compile(
    r"Traceback|Unable to|Errno|No columns to parse|size mismatch|dtype\(|KeyError|NoneType|object has no"
)


def test_there_are_mistakes_of_every_command():
    from manigeo.cli.main import COMMANDS

    assert len(ROWS) >= 60
    assert {words.split()[0] for words, _, _ in ROWS} >= set(COMMANDS) - {"layers", "gradients", "reinit"}


@pytest.mark.parametrize(("words", "said", "remedy"), ROWS, ids=[words for words, _, _ in ROWS])
def test_a_mistake_is_answered_in_one_line_with_a_remedy_that_works(desk, monkeypatch, words, said, remedy):
    monkeypatch.chdir(desk)
    there = sorted(os.listdir())
    code, out, err = run(*shlex.split(words))
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert (code in (2, 3), len(lines)) == (True, 1), err
    assert said in lines[0]
    assert not BARE.search(out + err)
    assert sorted(os.listdir()) == there
    if remedy:
        done(*shlex.split(remedy))
    for path in set(os.listdir()) - set(there):
        assert path.endswith(".png")
        Path(path).unlink()


# ------------------------------------------------------------------------------------------------------ from next to next
def followed(*words: object) -> str:
    """What a command prints, after the command that it names as the next was carried out, too."""
    said = done(*words)
    for line in re.findall(r"next: manigeo (.+?)(?: when all are there)?$", said, flags=re.MULTILINE):
        done(*shlex.split(line.replace("*", "?")) if "*" not in line else _globbed(line))
    return said


def _globbed(line: str) -> list[str]:
    return [
        name for word in shlex.split(line) for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]


def test_every_next_line_names_a_command_that_is_not_refused(desk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_, quick = desk / "run", ("--per-class", 4)
    commands = [
        ("train", "--data", "digits", "--data-arg", "per_class=12", "--arch-arg", "width=8", "--arch-arg", "depth=2",
         "--epochs", 1, "--out", "t"),
        ("extract", "--model", desk / LAST, *quick, "--out", "new.h5", "--layers", "h?"),
        ("extract", "--model", desk / LAST, *quick, "--out", "s.h5", "--layers", "h?", "--shard", "1/2"),
        ("capacity", "new.h5", "--draws", 5, "--centers", "keep", "--force"),
        ("separability", "new.h5", "--measures", "means"),
        ("weights", run_), ("rewind", run_, "--checkpoints", "1", "--each", "--noise-draws", 0),
        ("reinit", run_, "--draws", 0, "--no-zero", "--checkpoints", "init"), ("gradients", run_, "--checkpoints", "init,1"),
        ("localize", "new.capacity.csv"),
    ]  # fmt: skip
    for words in commands:
        if "1/2" in words:
            done(*[word.replace("1/2", "2/2") if isinstance(word, str) else word for word in words])
        followed(*words)
        for path in tmp_path.glob("*.png"):
            path.unlink()
        for path in tmp_path.glob("acts*"):
            path.unlink()
