"""Every block of code and every command of the README and the documentation runs, with what their readers are told to have.

Blocks of a page run in its order, in a folder of its own that holds the run of the guide to one's own model. What a test
lacks, a cluster or a set of images, is stood in for. Blocks marked ``console`` need a network that has memorized: they run
on small ones that have not, and may say that. Those marked ``bash`` take minutes, or other programs, as they stand: these
pages have tests of their own, in which less is trained. Nothing else is on the pages:
:func:`test_every_block_is_of_a_sort_that_a_test_runs`.
"""

import glob
import importlib
import math
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import click
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

import manigeo
from manigeo import create_activations, write_results
from manigeo.activations import StoredLayer
from manigeo.cli.main import COMMANDS, cli
from manigeo.results import as_table
from manigeo.vocabulary import FIGURES
from manigeo_extract.data.grammar import sentences
from tests.bench import at_scale, width_sweep
from tests.command_line import done, run
from tests.drawn import TABLES
from tests.effects import assert_effect, shifted

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guide"
MARKDOWN = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.is_file()]
PAGES = {
    "commands" if path.parent.name == "commands" and path.stem == "index" else path.stem: path for path in MARKDOWN
}
FENCE = re.compile(r"^```([^\n]*)\n(?::caption: (\S+)\n\n)?(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = {  # language, caption, code
    name: [
        (info.removeprefix("{code-block} "), caption, code)
        for info, caption, code in FENCE.findall(path.read_text("utf-8"))
    ]
    for name, path in PAGES.items()
}
RUNNING = [name for name, blocks in BLOCKS.items() if any(language in ("python", "sh") for language, _, _ in blocks)]
INLINE = re.compile(r"`(manigeo [a-z][^`]*)`")
pytestmark = pytest.mark.skipif(not GUIDE.is_dir(), reason="needs the folder docs/ of a checkout")

# What is typed beside the lines of the pages: the network of the guide, one process, few examples, layers and epochs.
OWN = ("--arch", "mine.py:make_net", "--data", "mine.py:make_data")
LESS = {
    "analyze": ("--jobs", 1, "--per-class", 6, "--layers", "2.1", "--layers", "3", "--classes", 10, *OWN),
    "train": (
        "--data",
        "digits",
        "--data-arg",
        "per_class=12",
        "--arch",
        "mlp",
        "--arch-arg",
        "width=8",
        "--epochs",
        2,
    ),
    "capacity": ("--jobs", 1, "--draws", 50, "--classes", 10, "--force"),
    "sweep": ("--dry-run",),  # what it does is tested where its cells are small
    "benchmark": ("--dry-run",),
}


# ------------------------------------------------------------------------------------------------ what readers have
@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    """Folder in which a reader has done what the guide to one's own model says, up to the report; and what it said."""
    at = tmp_path_factory.mktemp("guide")
    for name in ("mine.py", "train.py"):
        shutil.copy(GUIDE / name, at)
    written = (at / "train.py").read_text()
    assert written.count("manual_seed(0)") == 1
    (at / "train.py").write_text(written.replace("manual_seed(0)", f"manual_seed({shifted()})"))
    subprocess.run([sys.executable, "train.py"], cwd=at, check=True)
    (line,) = commands("own_model")[:1]
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(at)
        patched.setattr(sys, "path", [str(at), *sys.path])
        (at / "said.txt").write_text(typed(line, "own_model"))
    return at


@pytest.fixture
def reader(guide, tmp_path, monkeypatch):
    """A copy of that folder as the working directory, with the small files that the pages speak of."""
    here = tmp_path / "here"
    shutil.copytree(guide, here)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    images, labels = load_digits().images[:40].astype("float32"), load_digits().target[:40]
    np.savez("areas.npz", V1=images.reshape(40, -1), V4=images.reshape(40, -1)[:, 20:40], labels=labels)
    done("train", "--data", "digits", *LESS["train"][2:], "--permute", 0.5, "--out", "small")
    shutil.copy("small/checkpoints/last.pt", "ckpt.pt")
    given = names(images, labels)
    write_demo(given["points"])
    return given


def write_demo(points):
    """Activations and a table with the names of the demo's."""
    labels = np.repeat(range(4), 20)
    columns = {"index": range(80), "split": "train", "true_label": labels, "train_label": labels, "permuted": True}
    layer = StoredLayer("h6.linear", 0, "Linear", 0, (30,), "flatten", None, ())
    with create_activations("acts.h5", pd.DataFrame(columns), list("abcd"), [layer], {}, force=True) as writer:
        writer.append({"h6.linear": points})
    rows = [{"layer": f"h{k}", "depth": k, "kind": "test", "metric": "capacity", "value": 0.2} for k in range(1, 6)]
    write_results(as_table(rows), "acts.capacity.csv", force=True)


def names(images, labels):
    rng = np.random.default_rng(0)
    manifolds = [rng.standard_normal(30) + rng.standard_normal((20, 30)) for _ in range(4)]
    center = manifolds[0].mean(axis=0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 10))
    responses = images.reshape(40, 64)[np.argsort(labels, kind="stable")][:36].reshape(9, 4, 64)
    return {
        "manigeo": manigeo, "manifolds": manifolds, "X": manifolds[0], "others": np.concatenate(manifolds[1:]),
        "points": np.concatenate(manifolds), "labels": np.repeat(range(4), 20), "radii": np.array([0.5, 1.0]),
        "around_center": (manifolds[0] - center) / np.linalg.norm(center), "dimensions": np.array([2.0, 3.0]),
        "model": net, "early_weights": net.state_dict(), "epochs": 1,
        "accuracy": 0.5, "loss": 0.7, "n": 9, "images": images, "train_images": images,
        "train_labels": labels, "test_images": images, "test_labels": labels, "noisy_labels": rng.permutation(labels),
        "noisy": rng.permutation(labels), "true_labels": labels, "V1": images.reshape(40, 64),
        "V4": images.reshape(40, 64)[:, 20:44],
        "stimuli": np.arange(40) % 10, "responses": responses,
    }  # fmt: skip


@pytest.fixture
def stand_ins(monkeypatch):
    """Libraries and services that no test has, with the calls that the pages make."""
    logged = []
    modules = {
        "dask_jobqueue": {"SLURMCluster": lambda **options: SimpleNamespace(adapt=lambda maximum_jobs: None)},
        "lightning": {"Callback": object},
        "wandb": {"init": lambda project: SimpleNamespace(log=logged.append)},
        "torch.utils.tensorboard": {"SummaryWriter": lambda folder: Writer(logged)},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return logged


class Writer:
    def __init__(self, logged):
        self.add_scalar = lambda tag, value, step: logged.append((tag, value, step))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


# ---------------------------------------------------------------------------------------------------------- the lines
def commands(page, *languages):
    """Command lines of a page, without comments; those of several lines are one."""
    found = [code for language, _, code in BLOCKS[page] if language in (languages or ("sh",))]
    lines = "\n".join(found).replace("\\\n", " ").splitlines()
    return [line for line in lines if "manigeo " in line and not line.startswith("#")]


def words_of(line):
    """Words after ``manigeo`` in a line of a shell, names of files expanded."""
    words = shlex.split(line[line.index("manigeo ") :].split('"')[0].split(">")[0], comments=True)[1:]
    return [
        name for word in words for name in (sorted(glob.glob(word)) if word.endswith(("*.h5", "/*")) else []) or [word]
    ]


def typed(line, page):
    """Stdout of a line, at small settings."""
    words = words_of(line)
    forced = ["--force"] if words[0] in ("extract", "train") and "--shard" not in words else []
    trained = any("manigeo train" in command for command in commands(page))
    less = ("--dry-run",) if trained and words[0] == "analyze" else LESS.get(words[0], ())
    said = done(*words, *less, *forced)
    if ">" in line.split("#")[0]:
        Path(line.split("#")[0].split(">")[1].strip()).write_text(said)
    return said


@pytest.mark.parametrize("page", RUNNING)
def test_the_blocks_of_a_page_run_in_its_order(page, reader, stand_ins):
    scope = dict(reader)
    if page == "gallery":
        for name in FIGURES:
            write_results(TABLES[name], f"{name}.csv")
    if page == "examples":
        shutil.rmtree("run")
        shutil.move("small", "run")
        layers = ("--layers", "input", "--layers", "logits")
        done("extract", "--model", "run/checkpoints/last.pt", *layers, "--out", "run/last.h5")
        done("examples", "run/last.h5", "--measures", "margin")
    for language, caption, code in BLOCKS[page]:
        if caption:
            Path(caption).write_text(code)
        if page == "training_loop":  # each of its recorders begins a run
            shutil.rmtree("run", ignore_errors=True)
        if language == "python":
            exec(compile(code, page, "exec"), scope)
        if language == "sh":
            for line in code.replace("\\\n", " ").splitlines():
                if line.startswith("manigeo "):
                    typed(line, page)
    if page == "training_loop":
        record = scope["Record"]()
        record.on_train_start(None, scope["model"])
        record.on_train_epoch_end(SimpleNamespace(current_epoch=0), scope["model"])
        assert Path("run/checkpoints/last.pt").is_file()
        assert len(stand_ins) > 4


FOREIGN = {"own_model", "real_networks"}  # recurrent networks, and those of packages that the tests do not have


SMALL = (*LESS["train"], "--data-arg", "per_class=100", "--permute", 0.5)


@pytest.fixture(scope="module")
def small_runs(tmp_path_factory):
    """Folder of four small runs, and of the activations that the pages read."""
    at = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(at)
        for seed, name in enumerate(("run", "run1", "run2", "run3")):
            done("train", *SMALL, "--seed", seed, "--out", name)
        Path("run/analysis").mkdir()
        for out in ("last.h5", "run/analysis/last.h5"):
            done("extract", "--model", "run/checkpoints/last.pt", "--out", out)
    return at


@pytest.mark.parametrize("page", [name for name in PAGES if commands(name, "console") and name not in FOREIGN])
def test_the_console_blocks_of_a_page_run_or_ask_for_a_network_that_has_memorized(
    page, small_runs, tmp_path, monkeypatch
):
    shutil.copytree(small_runs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    few = ("--draws", 10, "--jobs", 1, "--force")
    less = {
        "analyze": ("--dry-run",),
        "channels": ("--examples", 2),
        "examples": (*few, "--max-examples", 100),
        "train": SMALL,
    }
    less["capacity"] = (*few, "--classes", 4, "--centers", "keep", "--layers", "logits")
    for command, options in less.items():
        monkeypatch.setitem(LESS, command, options)
    refused = False
    for line in commands(page, "console"):
        words = words_of(line)
        code, _, err = run(*words, *LESS.get(words[0], ()), *["--force"] * (words[0] in ("train", "extract")))
        asks = code == 3 and (
            refused or re.search("memoriz|has no results", err)
        )  # what was refused has written nothing
        assert code == 0 or asks, (line, err)
        refused |= code == 3


@pytest.mark.parametrize("page", list(PAGES))
def test_commands_named_on_a_page_take_the_options_named_with_them(page, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "8")
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "run1", "run2", "run3", "subsets/cells/1", "subsets/cells/2"):
        (tmp_path / folder).mkdir(parents=True)
    blocks = commands(page, "sh", "console", "bash")
    lines = [*blocks, *INLINE.findall(PAGES[page].read_text("utf-8"))]
    for line in lines:
        words = words_of(line)
        if words[0] in COMMANDS:
            command = cli.get_command(click.Context(cli), words[0])
            known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            assert {word for word in words if word.startswith("--")} <= known | {"--help"}, line
        else:
            assert words[0].isupper() or words[0] == "--help", line
    with patch.object(click.Path, "convert", lambda self, value, param, ctx: Path(value)):
        for line in blocks:
            words = words_of(line.replace("--config mine.toml", ""))
            cli.get_command(click.Context(cli), words[0]).make_context(words[0], words[1:])


# What stands in the lines of these pages that take minutes, and what is typed in its place.
ANALYZE = "manigeo analyze --jobs 1 --per-class 6 --classes 4 --skip separability --skip report"
REWIND = f"{ANALYZE} --skip weights --skip reinit --skip gradients"
INSTEAD = {
    "findings": {
        "manigeo benchmark": "manigeo benchmark --dry-run",
        "--data glyphs --data-arg classes=50 --data-arg per_class=60": "--data digits --data-arg per_class=12",
        "depth=6 --arch-arg width=256": "depth=2 --arch-arg width=8",
        "--milestones 25 --epochs 32": "--milestones 1 --epochs 2",
        "manigeo examples": "manigeo examples --jobs 1",
    },
    "language_models": {
        "--data sentences": "--data sentences --data-arg n=100 --data-arg scored=20 --arch-arg width=16 --arch-arg depth=2",
        "--epochs 14": "--epochs 1",
        "manigeo analyze run": f"{REWIND} --layers block1 run",
        "manigeo analyze gpt": f"{ANALYZE} --skip localize --layers transformer.h.0 gpt",
    },
    "memorization": {
        "--jobs -1": "--jobs 1",
        "--data digits": "--data digits --data-arg per_class=12 --arch mlp --arch-arg width=8 --epochs 2",
        "manigeo capacity": "manigeo capacity --jobs 1 --draws 10 --layers logits",
        "manigeo analyze": f"{REWIND} --layers logits",
    },
    "gallery": {},
}
SUBSETS = {
    "epochs = 30": "epochs = 1\ndata-arg = ['per_class=12']",
    "seed = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]": "seed = [0, 1, 2, 3]",
}

ONE_CELL = {
    "epochs = 150": "epochs = 1\ndata-arg = ['per_class=12']",
    "[8, 16, 32, 64]": "[8]",
    "[0, 1, 2]": "[0]",
    '["rewind", ': '["extract", "capacity", "separability", "localize", "report", "rewind", ',
}


def replaced(text, instead):
    for old, new in instead.items():
        assert old in text
        text = text.replace(old, new)
    return text


def before_gallery():
    done("extract", "--model", "run/checkpoints/last.pt", "--weights", "init", "--out", "run/analysis/before.h5")


def before_memorization():
    ((_, name, options),) = [block for block in BLOCKS["memorization"] if block[0] == "toml"]
    Path(name).write_text(replaced(options, SUBSETS))


PRETRAINED = """
from transformers import GPT2Config, GPT2LMHeadModel


def net():
    sizes = {"vocab_size": 300, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
"""


def before_language_models():
    """A text, and a language model of another program that knows its beginning by heart."""
    transformers, tokenizers = (pytest.importorskip(name) for name in ("transformers", "tokenizers"))
    text = sentences(100, seed=1)
    Path("pages").mkdir()
    Path("pages/all.txt").write_text(text)
    Path("net.py").write_text(PRETRAINED)
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([text], vocab_size=300, show_progress=False)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained("gpt")
    tokens = torch.tensor(tokenizer.encode(text).ids)[: 64 * 10].view(10, 64)
    torch.manual_seed(0)
    model = runpy.run_path("net.py")["net"]()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    model.save_pretrained("gpt")


BEFORE = {
    "gallery": before_gallery,
    "language_models": before_language_models,
    "memorization": before_memorization,
}


@pytest.mark.parametrize("page", INSTEAD)
def test_the_lines_that_take_minutes_run_with_less_to_do(page, small_runs, tmp_path, monkeypatch):
    shutil.copytree(small_runs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    if page in BEFORE:
        BEFORE[page]()
    lines = replaced("\n".join(commands(page, "bash")), INSTEAD[page]).splitlines()
    for line in lines:
        words = words_of(line)
        code, _, err = run(*words, *["--force"] * (words[0] in ("train", "extract")))
        # a network that has not memorized is refused in these words, in a step of `analyze` too
        asks = code == (1 if words[0] == "analyze" else 3) and re.search("memoriz|has no results", err)
        assert code == 0 or asks, (line, err)


# Stand-ins for Slurm and its machines: the array is run one task after the other, each at small settings.
SBATCH = """#!/bin/bash
set -e
for word; do case $word in --wrap) wrapped=1;; -*) ;; *) script=$word;; esac; done
if [ "${wrapped:-}" ]; then bash -c "$script" >> said.txt; else
  grep -q "^#SBATCH --array=1-8$" "$script"
  export SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_COUNT=2 SLURM_CPUS_PER_TASK=1
  for task in 1 2; do SLURM_ARRAY_TASK_ID=$task bash "$script" >> said.txt; done
fi
echo 12345
"""
MANIGEO = """#!/bin/bash
case $1 in extract) less="--per-class 4 --layers 3";; sweep) less=--dry-run;; esac
{ printf '%s\\n' "$@" $less; echo; env | grep ^SLURM_; } > asked
read -r code < answered
cat answer.txt
exit $code
"""


def shell(code):
    """Run lines of a shell, to their exit code. The command in them, and in what they submit, asks this process, which has
    imported what it takes, through a pipe."""
    started = subprocess.Popen(["bash", "-c", f'(set -e\n{code}\n)\necho "done $?" > asked'])
    while not (asked := Path("asked").read_text()).startswith("done "):
        words, variables = (part.splitlines() for part in asked.split("\n\n"))
        with patch.dict(os.environ, dict(line.split("=", 1) for line in variables)):
            exit_code, said, complained = run(*words)
        sys.stderr.write(complained)
        Path("answer.txt").write_text(said)
        Path("answered").write_text(f"{exit_code}\n")
    started.wait()
    return int(asked.split()[1])


@pytest.mark.long
def test_the_lines_for_slurm_run_as_an_array_and_what_waits_for_it(reader, monkeypatch):
    for name, content in (("sbatch", SBATCH), ("manigeo", MANIGEO), ("activate", "")):
        Path(".venv/bin").mkdir(parents=True, exist_ok=True)
        Path(".venv/bin", name).write_text(content)
        Path(".venv/bin", name).chmod(0o755)
    for pipe in ("asked", "answered"):
        os.mkfifo(pipe)
    monkeypatch.setenv("PATH", f"{Path('.venv/bin').absolute()}:{os.environ['PATH']}")
    (grid,) = [code for language, _, code in BLOCKS["sweeps"] if language == "toml"]
    Path("width.toml").write_text(grid)
    Path("acts.h5").unlink()
    for _, caption, code in BLOCKS["cluster"]:
        if caption:
            Path(caption).write_text(code.removeprefix("\n"))
        else:
            assert shell(code.replace("of-8", "of-2")) == 0
    with manigeo.open_activations("acts.h5") as merged:
        assert list(merged.layers) == ["3"]
    said = Path("said.txt").read_text()
    assert (said.count("6 cells (6 to do)"), said.count("12 cells (12 to do)")) == (2, 1)


class Rows(torch.nn.Module):
    """Reads an image row by row, in torch's own order of axes."""

    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.LSTM(8, 5, num_layers=2)
        self.logits = torch.nn.Linear(5, 10)

    def forward(self, images):
        out, _ = self.rnn(images.movedim(0, 1))
        return self.logits(out[-1])


def test_the_lines_for_recurrent_networks_run(reader, monkeypatch):
    with open("mine.py", "a") as file:
        file.write("\n\ndef make_net():\n    from tests.test_pages import Rows\n\n    return Rows()\n")
    torch.save(Rows().state_dict(), "lstm.pt")
    lines = [line for line in commands("own_model", "console") if "lstm.pt" in line]
    assert len(lines) == 2
    for line in lines:
        done(*words_of(line), *["--force"] * ("extract" in line))
    with manigeo.open_activations("lstm.h5" if Path("lstm.h5").exists() else "acts.h5") as acts:
        assert {name: acts.rows(name, np.arange(3)).shape for name in acts.layers} == {
            "rnn:h_l0": (3, 5), "rnn:h_l1": (3, 5),
        }  # fmt: skip


# ------------------------------------------------------------------------------------------------ lines of other programs
def other_lines(page):
    """Lines that a page gives to a shell, but that are not manigeo's; where some have a prompt, the others are output."""
    found = []
    for language, _, code in BLOCKS[page]:
        if language in SHELL:
            lines = code.replace("\\\n", " ").splitlines()
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ") or not code.startswith("$ ")]
            found += [line for line in lines if line.strip() and not line.startswith(("manigeo ", "#"))]
    return found


def test_the_makefile_has_the_targets_of_the_readme():
    if shutil.which("make") is None:
        pytest.skip("needs make")
    for line in other_lines("README"):
        program, target = shlex.split(line, comments=True)
        assert program == "make"
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_programs_of_the_benchmarks_write_their_tables(tmp_path, monkeypatch, capsys):
    """As they are typed, on digits and for networks of one hidden layer that are hardly trained, and not set back."""
    monkeypatch.chdir(tmp_path)
    training = "--arch mlp --arch-arg depth=1 --epochs 1"
    small = {"training": training, "seeds": (0,), "checkpoints": ("last",), "layers": ("logits",), "localize": False}
    recipes = {name: recipe._replace(**small) for name, recipe in at_scale.RECIPES.items()}
    digits, labels = load_digits().images, load_digits().target
    np.savez(
        "cifar100_150x40.npz", x_train=digits[:1200], y_train=labels[:1200], x_test=digits[1200:], y_test=labels[1200:]
    )
    monkeypatch.setattr(at_scale, "RECIPES", recipes)
    monkeypatch.setattr(at_scale, "WORK", tmp_path / "work")
    monkeypatch.setattr(width_sweep, "WIDTHS", (16,))
    monkeypatch.setattr(width_sweep, "TRAINING", replaced(width_sweep.TRAINING, {"--epochs 50": "--epochs 1"}))
    monkeypatch.setattr(width_sweep, "TABLE", tmp_path / "mlp_digits.width.csv")
    monkeypatch.setattr(at_scale, "RESULTS", tmp_path)
    for line in dict.fromkeys(other_lines("findings")):
        python, m, module, *words = shlex.split(line.replace("--device cuda", "--device cpu"))
        assert (python, m) == ("python", "-m")
        if module.endswith("width_sweep"):
            words += ["--seeds", "1"]
        importlib.import_module(module).main(words, standalone_mode=False)
        os.chdir(tmp_path)
    told = re.findall(r'^\["(\S+)"\]$', capsys.readouterr().out, re.MULTILINE)
    assert set(told) == {path.name for path in tmp_path.glob("*.csv")} != set()


def test_a_sweep_runs_on_a_cluster_with_the_certificate_of_the_page(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    make, use = [code for language, _, code in BLOCKS["sweeps"] if language == "bash"]
    assert set(other_lines("sweeps")) <= set(f"{make}\n{use}".replace("\\\n", " ").splitlines())
    (grid,) = [code for language, _, code in BLOCKS["sweeps"] if language == "toml"]
    (tmp_path / "width.toml").write_text(replaced(grid, ONE_CELL))
    paths = os.pathsep.join([str(ROOT), str(ROOT / "extract")])
    home = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": paths}
    subprocess.run(["bash", "-ec", make], env=home, check=True, capture_output=True)
    scheduler, worker, sweep = (shlex.split(line, comments=True) for line in use.splitlines())
    dask = [sys.executable, "-m", "dask"]
    with subprocess.Popen(
        [*dask, *scheduler[1:], "--port", "0"], env=home, stderr=subprocess.PIPE, text=True
    ) as started:
        helper = None
        try:
            address = next(
                found[1] for line in started.stderr if (found := re.search(r"Scheduler at:\s+(tls://\S+)", line))
            )
            worker, sweep = (
                [address if word.startswith("tls://") else word for word in line] for line in (worker, sweep)
            )
            helper = subprocess.Popen([*dask, *worker[1:]], env=home, cwd=tmp_path, stderr=subprocess.DEVNULL)
            program = [sys.executable, "-c", "from manigeo.cli.main import main; main()"]
            said = subprocess.run(
                [*program, *sweep[1:]], env=home, cwd=tmp_path, capture_output=True, text=True, timeout=300
            )
            assert said.returncode == 0, said.stderr
            assert len([*tmp_path.glob("width/cells/*/analysis/weights.csv")]) == 1
        finally:
            for process in filter(None, (helper, started)):
                process.terminate()
            if helper is not None:
                helper.wait(60)


def test_the_shell_completes_after_the_line_for_it(tmp_path, monkeypatch):
    (line,) = other_lines("commands")
    (tmp_path / "manigeo").write_text(
        f'#!/bin/bash\nexec {sys.executable} -c "from manigeo.cli.main import main; main()" "$@"\n'
    )
    (tmp_path / "manigeo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "extract")]))
    typed_in = subprocess.run(["bash", "-ec", f"{line}; complete -p manigeo"], capture_output=True, text=True)
    assert re.fullmatch(r"complete .*_manigeo_completion manigeo\n", typed_in.stdout), typed_in.stderr


SHELL = {"sh", "console", "bash"}
OTHER_PROGRAMS = {  # pages with lines of other programs, and what runs all of these
    "README": test_the_makefile_has_the_targets_of_the_readme,
    "commands": test_the_shell_completes_after_the_line_for_it,
    "findings": test_programs_of_the_benchmarks_write_their_tables,
    "sweeps": test_a_sweep_runs_on_a_cluster_with_the_certificate_of_the_page,
    "cluster": test_the_lines_for_slurm_run_as_an_array_and_what_waits_for_it,
    "real_networks": "tests/test_real_networks.py",
}
MADE = {"command", "eval-rst", "figure-of", "image", "include", "literalinclude", "toctree", "words-of"}  # by Sphinx


def test_every_block_is_of_a_sort_that_a_test_runs():
    sorts = {(page, language) for page, blocks in BLOCKS.items() for language, _, _ in blocks}
    directives = {(page, language) for page, language in sorts if language.startswith("{")}
    assert {re.match(r"{([\w-]+)}", language)[1] for _, language in directives} <= MADE
    assert {language for _, language in sorts - directives} <= {"python", *SHELL, "toml", "text"}
    assert {page for page in PAGES if other_lines(page)} == set(OTHER_PROGRAMS)
    files = {
        page: len(re.findall(r"^ *(```|~~~)", path.read_text("utf-8"), re.MULTILINE)) for page, path in PAGES.items()
    }
    assert {page: 2 * len(blocks) for page, blocks in BLOCKS.items()} == files  # none that FENCE does not see
    assert len(PAGES) == len(MARKDOWN)  # every page has a name of its own


@pytest.mark.parametrize("page", [page for page in PAGES if any(language == "toml" for language, _, _ in BLOCKS[page])])
def test_files_of_options_are_read(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _, name, options in (block for block in BLOCKS[page] if block[0] == "toml"):
        Path(name or "width.toml").write_text(options)
        if "grid" in tomllib.loads(options):
            assert "cells" in done("sweep", name or "width.toml", "--dry-run")
        else:
            assert f"--config {name}" in "\n".join(commands(page))  # typed in by the test of its page


# ------------------------------------------------------------------------------------------------------- what they tell
@pytest.mark.training
def test_the_guide_to_your_own_model_leads_to_an_answer(guide, monkeypatch):
    monkeypatch.chdir(guide)
    monkeypatch.setattr(sys, "path", [str(guide), *sys.path])
    assert "The network has memorized (training accuracy on permuted labels" in (guide / "said.txt").read_text()
    assert (guide / "run/analysis/report.html").is_file()
    for line in commands("own_model")[2:4]:
        typed(line, "own_model")
    table = manigeo.read_results("acts.capacity.csv")
    rows = table[(table["metric"] == "capacity") & (table["manifold"] == "") & (table["kind"] == "permuted")]
    images, logits = (rows.set_index("layer").loc[layer] for layer in ("input", "3"))
    error = math.hypot(images["stderr"], logits["stderr"])
    assert_effect("rise of permuted capacity from the images to the logits", logits["value"] - images["value"], error)


def test_options_in_a_file_are_those_of_the_page(reader):
    ((_, name, options),) = [block for block in BLOCKS["options"] if block[0] == "toml"]
    Path(name).write_text(options)
    assert set(tomllib.loads(options)) == {"labels", "layers", "arch-args"}
    (line,) = commands("options")
    typed(line, "options")
    with manigeo.open_activations("layers.h5") as chosen:
        assert list(chosen.layers) == ["1.0", "1.1", "2.0", "2.1"]


def test_the_gallery_shows_every_figure():
    named = re.findall(r"```{figure-of} (\S+)\n", PAGES["gallery"].read_text("utf-8"))
    assert named == list(FIGURES)
    assert [name for name in named if not (ROOT / "docs/_static/gallery" / f"{name}.png").is_file()] == []


def test_the_readme_is_short():
    assert len(PAGES["README"].read_text("utf-8").splitlines()) < 150
