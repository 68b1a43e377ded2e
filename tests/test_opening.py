"""The door to live networks: requests, and the options that they are made of."""

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manigeo.cli import options
from manigeo_extract.data.datasets import Permutation, load_data, permute_labels
from manigeo_extract.interventions.studies import StudiesRequest
from manigeo_extract.models import build_model
from manigeo_extract.opening.requests import (
    ExtractionRequest,
    LaboratoryRequest,
    RunRequest,
    TrainingRequest,
    requested,
)
from manigeo_extract.opening.studies import open_laboratory
from manigeo_extract.training.recorder import Recorder
from tests.command_line import run

REQUESTS = {
    "layers": [ExtractionRequest],
    "extract": [ExtractionRequest],
    "train": [TrainingRequest],
    "gradients": [RunRequest],
    "rewind": [RunRequest],
    "reinit": [RunRequest, StudiesRequest],
}
SHORT = {
    "train": {"canaries", "dropout", "holdout_classes", "subset", "tied_dropout"}
}  # for arguments of the network and of the data


def names(kind: type) -> Iterator[str]:
    """The fields of a request that are no requests themselves, and those of the requests in it."""
    for field in dataclasses.fields(kind):
        nested = field.default_factory
        yield from names(nested) if dataclasses.is_dataclass(nested) else [field.name]


@pytest.mark.parametrize("name", REQUESTS)
def test_every_option_is_an_argument_of_its_command_or_part_of_a_request(name):
    command = getattr(importlib.import_module(f"manigeo.cli.{name}"), f"{name}_command")
    taken = {p.name for p in inspect.signature(command.callback).parameters.values() if p.kind is not p.VAR_KEYWORD}
    taken |= {field for kind in REQUESTS[name] for field in names(kind)} | SHORT.get(name, set())
    given = {param.name for param in command.params if param.expose_value}
    assert given <= taken


def test_a_request_takes_what_it_has_fields_for_at_any_depth():
    asked = {"arch": "mlp", "data_args": {"per_class": 4}, "labels": Path("a.csv"), "seed": 3, "most": 9, "out": "x"}
    request = requested(RunRequest, asked)
    model = request.model
    assert (model.network.arch, model.data.data_args, model.labels.labels) == ("mlp", {"per_class": 4}, Path("a.csv"))
    assert (model.seed, request.most, request.at) == (3, 9, "last")


def test_a_laboratory_is_opened_once_an_occasion_and_says_so_once(tmp_path):
    data = load_data("digits", {"per_class": 4})
    arguments = {"input_shape": [1, 8, 8], "n_classes": 10, "depth": 1, "width": 4}
    recorder = Recorder(tmp_path / "run", arch="mlp", arch_args=arguments, data=data.spec, data_args=data.args)
    recorder.step(build_model("mlp", arguments, seed=0), 0)
    permute_labels(data, Permutation(0.5)).to_csv(tmp_path / "run" / "labels.csv", index=False)
    said: list[str] = []
    first, second = (LaboratoryRequest(name, tmp_path / "run", RunRequest(at=0), "rewind") for name in "ab")
    opened = open_laboratory(first, said.append)
    again = dataclasses.replace(first, batch_norm="params")  # as it comes back from a pickle: another object
    assert open_laboratory(again) is opened
    assert said == ["labels of training from run/labels.csv"]
    assert open_laboratory(second, said.append) is not opened
    assert len(said) == 2


@given(st.lists(st.integers(2, 10**6), min_size=1))
def test_numbers_are_read_as_they_stand(numbers):
    read = options.whole_numbers("numbers of 2 or more", least=2)
    context = click.Context(click.Command("c"))
    assert read(context, click.Option(["--n"]), ",".join(map(str, numbers))) == tuple(numbers)
    with pytest.raises(click.BadParameter, match="expected numbers of 2 or more; got"):
        read(context, click.Option(["--n"]), ",".join(map(str, [*numbers, 1])))


@pytest.mark.parametrize(
    ("command", "option"), [("rewind", "--checkpoints"), ("reinit", "--set"), ("layers", "--types")]
)
def test_a_missing_name_between_commas_is_refused(command, option, tmp_path):
    code, _, err = run(command, *([] if command == "layers" else [tmp_path]), option, "a,,b")
    assert code == 2
    assert "with commas between, e.g. " in err
    assert "got 'a,,b'" in err
