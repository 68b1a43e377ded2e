"""The face of the commands: groups, examples, completion, and what they advise."""

import ast
import functools
import glob
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import click
import pytest

from manigeo.cli.commands import GROUPS, WIDTH
from manigeo.cli.help_examples import EXAMPLES
from manigeo.cli.main import COMMANDS, SECTIONS, cli
from manigeo.text.separability import _short
from tests.command_line import done

ROOT = Path(__file__).parents[1]


def command_of(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def options_of(name: str) -> set[str]:
    return {option for param in command_of(name).params for option in (*param.opts, *param.secondary_opts)} | {
        "--help",
        "--debug",
    }


def help_of(name: str) -> str:
    with patch("shutil.get_terminal_size", lambda fallback=None: os.terminal_size((200, 40))):
        return done(name, "--help")


def sections_of(text: str) -> dict[str, str]:
    parts = re.split(r"^(\w[\w ]*):\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# ------------------------------------------------------------------------------------------------------------------ help
@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_stands_in_one_group_of_lines_that_fit(name):
    text = help_of(name)
    assert max(map(len, text.splitlines())) <= WIDTH
    sections = sections_of(text)
    listed = [option for part in sections.values() for option in re.findall(r"^  (-[^\s,]+)", part, flags=re.MULTILINE)]
    described = [param for param in command_of(name).params if isinstance(param, click.Option)]
    assert len(listed) == len(set(listed)) == len(described) + 1
    if len(described) >= 15:
        assert len(set(sections) & {"Options", *GROUPS}) >= 3


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_ends_with_examples_that_the_command_takes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run/checkpoints").mkdir(parents=True)
    for line in EXAMPLES[name]:
        assert line in sections_of(help_of(name))["Examples"]
        for word in shlex.split(line):
            if word.endswith((".toml", ".csv", ".pt", ".h5", ".ckpt")):
                Path(word.replace("*", "1")).touch()
            elif re.fullmatch(r"(run|seed)\d?|.*/\*", word):
                Path(word.replace("*", "1")).mkdir(parents=True, exist_ok=True)
        program, command, *words = (name for word in shlex.split(line) for name in glob.glob(word) or [word])
        assert (program, command) == ("manigeo", name)
        command_of(name).make_context(name, words)


def test_without_a_command_the_two_lines_and_the_groups_are_shown():
    said = done()
    assert "manigeo extract --model" in said
    assert "manigeo capacity acts.h5" in said
    at = [said.index(f"{section}:") for section in SECTIONS]
    assert at == sorted(at)
    assert all(f"  {name}  " in said for name in COMMANDS)
    assert max(map(len, said.splitlines())) <= 80


# ------------------------------------------------------------------------------------------------------------ completion
def completed(words: str, tmp_path: Path) -> str:
    code = "import sys; sys.argv = ['manigeo']; from manigeo.cli.main import main\n"
    code += "try:\n    main()\nfinally:\n"
    code += "    print([m for m in sys.modules if m in ('torch', 'h5py', 'pandas')], file=sys.stderr)"
    at = {"_MANIGEO_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | at, capture_output=True, text=True, cwd=tmp_path
    )
    assert found.stderr.strip() == "[]"
    return found.stdout


def test_words_are_completed_without_what_commands_need(tmp_path):
    assert completed("manigeo cap", tmp_path).split() == ["plain,capacity"]
    assert set(completed("manigeo capacity --ki", tmp_path).split()) == {"plain,--kinds"}


def test_a_shell_is_given_a_script_for_completion(monkeypatch, capfd):
    monkeypatch.setenv("_MANIGEO_COMPLETE", "bash_source")
    monkeypatch.setattr(sys, "argv", ["manigeo"])
    from manigeo.cli.main import main

    with pytest.raises(SystemExit):
        main()
    assert "_manigeo_completion" in capfd.readouterr().out


# ---------------------------------------------------------------------------------------------------------------- advice
@functools.cache  # long, and not for those who only collect the tests
def texts() -> list[tuple[str, str]]:
    """Every text in the source, the values in it as {}, with the place where it stands."""
    found = []
    for path in [*ROOT.glob("manigeo/**/*.py"), *ROOT.glob("extract/manigeo_extract/**/*.py")]:
        tree = ast.parse(path.read_text("utf-8"))
        inner = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
                found.append((f"{path.name}:{node.lineno}", text))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
                found.append((f"{path.name}:{node.lineno}", node.value))
    return found


NO_COMMANDS = {"from", "with", "and", "that", "expects", "needs", "is", "can", "has", "does", "itself", "wrote", "package",
               "writes", "version", "in", "as", "may", "of", "to", "or", "on", "a", "for", "reads"}  # fmt: skip


def test_every_command_that_a_message_names_is_there_with_its_options():
    n = 0
    for place, text in texts():
        for name, rest in re.findall(r"(?<![\w-])manigeo ([a-z]+)\b([^;,.)(`:]*)", text):
            if name in COMMANDS:
                n += 1
                unknown = set(re.findall(r"(?<!\S)--[a-z][a-z0-9-]+", rest)) - options_of(name)
                assert not unknown, (place, text)
            else:
                assert name in NO_COMMANDS, (place, text)
    assert n > 60


def test_every_option_that_a_message_names_is_an_option_of_a_command():
    known = set().union(*(options_of(name) for name in COMMANDS)) | {"--version"}
    for place, text in texts():
        if text.startswith("--") or " " not in text:
            continue  # an option's own name
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text):
            assert option in known, (place, text)


def test_long_names_of_layers_leave_three_on_a_line():
    assert len(_short("features.denseblock4.denselayer16.conv2")) == 16


def test_tables_that_a_figure_can_be_drawn_of_are_known_without_the_figures():
    from manigeo.plots import FIGURES
    from manigeo.results import as_table
    from manigeo.vocabulary import DRAWN

    analyses = ("", "rewind", "reinit", "final_reset")
    plain = as_table(
        [{"metric": "probe_accuracy", "value": 0.5, "settings": f'{{"analysis": "{name}"}}'} for name in analyses]
    )
    always = [drawing.metrics for drawing in FIGURES.values() if drawing.when(plain.iloc[:0]) or drawing.when(plain)]
    assert frozenset().union(*always) == DRAWN
