"""Plausible mistakes in Python, with a live network and with arrays: each is answered in the library's words, with a remedy.

They are made in a process of their own: here, types are checked at every call, and would be refused before.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MADE = """
import numpy as np, pandas as pd, torch
from torch import nn
import manigeo, manigeo_extract as mx
X = np.random.default_rng(0).standard_normal((60, 5)).astype("float32")
Y = np.repeat(range(3), 20)
net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
data = {"train": (X, Y), "test": (X, Y)}
acts = manigeo.Activations.from_arrays({"V1": X}, Y)
"""
TRIES = """
import json, os, sys
answers = []
for line in json.loads(sys.stdin.read()):
    try:
        answers.append(["nothing", repr(eval(line))])
    except Exception as error:
        answers.append([type(error).__name__, str(error)])
print(json.dumps([answers, os.listdir()]))
"""
# what was typed | a part of what is said
MISTAKES = """
mx.extract(net, data, layers=[0, 2]) | layers must be named by text, as in layers=['fc1', 'conv*'], got int
mx.extract(net, data, layers=[net[0]]) | got Linear
mx.extract(net, data, layers=net[0]) | got Linear
mx.extract(net, data, exclude=[0]) | exclude must be named by text
mx.extract(net, data, layers=["fc1"]) | there are: input, 0, 1, 2, output
mx.extract(net, data, batch_size=0) | batch_size must be a whole number from 1 on, got 0
mx.extract(net, data, batch_size="32") | got '32'
mx.extract(net, data, seed=None) | seed must be a whole number from 0 on, got None
mx.extract(net, data, per_class="5") | per_class must be a whole number
mx.extract(net, data, out=5) | out='acts.h5'
mx.extract(net, data, out="acts.csv") | out='acts.h5'
mx.extract(net, data, device="gpu") | expected cpu, cuda
mx.extract(net, data, permuted=0.5) | give the labels trained on, train_labels=
mx.extract(net.state_dict(), data) | load it first
mx.extract(net, (X.astype(str), Y)) | expected numbers, got <U
mx.extract(net, {"valid": (X, Y)}) | expected examples of the splits train or test
mx.analyze(net, data, [net.state_dict()]) | {"before": ..., "last": ...}
manigeo.Activations.from_arrays(X, Y) | pass {"V1": X}
manigeo.Activations.from_arrays({"V1": X.T}, Y) | a label for each of the 5 examples, got 60 labels
manigeo.Activations.from_arrays({"V1": X}, np.eye(3)[Y]) | give labels.argmax(axis=1)
manigeo.capacity_table(X) | manigeo.Activations.from_arrays({"V1": X}, labels)
manigeo.capacity_table(acts, layers=[1]) | layers must be named by text
manigeo.capacity_table(acts, layers="V2") | no layer matches 'V2'
manigeo.capacity_table(acts, kinds=[1]) | kinds must be named by text
manigeo.capacity_table(acts, kinds="test") | it has all
manigeo.capacity_table(acts, per_class="10") | per_class must be a whole number
manigeo.capacity_table(acts, n_classes=2.5) | n_classes must be a whole number
manigeo.capacity_table(acts, seed=None) | seed must be a whole number from 0 on
manigeo.capacity_table(acts, seed=-1) | seed must be a whole number from 0 on
manigeo.capacity_table(acts, n_draws=1e3) | n_draws must be a whole number
manigeo.capacity_table(acts, kappa="0") | kappa must be a finite number, got '0'
manigeo.separability_table(acts, measures=["probe"]) | measure(NAME)
manigeo.separability_table(acts, per_class="10") | per_class must be a whole number
manigeo.plot_geometry(acts) | manigeo.capacity_table makes one
manigeo.plot_geometry("acts.capacity.csv") | manigeo.read_results reads one
manigeo.plot_geometry(pd.DataFrame({"metric": ["capacity"]})) | without the columns run, checkpoint
manigeo.plot_geometry(pd.DataFrame()) | without the columns
manigeo.summary(X) | got ndarray
manigeo.open_activations(".") | . is a folder
"""
ROWS = [line.split(" | ") for line in MISTAKES.strip().splitlines()]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The type and the message of the exception of each line; nothing may be left in the folder."""
    paths = {"PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", MADE + TRIES], input=json.dumps([typed for typed, _ in ROWS]), text=True,
        capture_output=True, cwd=tmp_path_factory.mktemp("desk"), env=os.environ | paths,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, left = json.loads(done.stdout.splitlines()[-1])
    assert left == []
    return {typed: answer for (typed, _), answer in zip(ROWS, said, strict=True)}


@pytest.mark.parametrize(("typed", "said"), ROWS, ids=[typed for typed, _ in ROWS])
def test_a_mistake_is_answered_in_words_of_this_library(answers, typed, said):
    name, message = answers[typed]
    assert name in ("UsageError", "InputError", "ValueError"), message
    assert said in message
    assert "\n" not in message
