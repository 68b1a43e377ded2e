"""The face of every command: its options in groups, examples, and what to type where something was typed wrongly."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import partial
from typing import Any

import click

from manigeo.cli.help_examples import EXAMPLES

WIDTH = 100  # columns of a help text, where the terminal has them
# group -> the options in it, by the names of their parameters; all others are of the command itself, and come first
GROUPS = {
    "Network": "model source arch arch_args weights state_key ema no_strict trust at group_by",
    "Data and labels": "data data_args permute convention permute_seed datasets labels holdout_classes most per_class "
    "classes kinds",
    "Layers": "layers layers_regex types exclude batch_axis readout backend everything",
    "Work": "device jobs cluster seed batch_size max_memory shard tf32 resume dry_run limit discard",
    "Output": "out as_json compression dtype project force config title dpi show help",
}
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names.split()}
_FEW = 10  # options that need no groups


class Command(click.Command):
    """A command of manigeo: as click's, with groups, examples and nearer remedies; ``lists`` are further lists of its help,
    by their titles."""

    def __init__(
        self, *args: Any, lists: Mapping[str, Sequence[tuple[str, str]]] | None = None, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self._lists = lists or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = [
            (param.name or "", record) for param in self.get_params(ctx) if (record := param.get_help_record(ctx))
        ]
        groups: dict[str, list[tuple[str, str]]] = {"Options": [], **{group: [] for group in GROUPS}}
        for name, record in records:
            groups["Options" if len(records) <= _FEW else _GROUP_OF.get(name.strip("_"), "Options")].append(record)
        for group, rows in groups.items():
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if examples := EXAMPLES.get(str(self.name), ()):
            with formatter.section("Examples"):
                for line in examples:
                    formatter.write(f"  {line}\n")
        for title, rows in self._lists.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _with_hint(
                error, _where_it_is(str(self.name), error.option_name, given, error.possibilities)
            ) from error
        except click.BadParameter as error:
            lists = any("," in word and "=" not in word and word in error.message for word in given)
            several = error.param is not None and error.param.multiple and lists
            name = max(error.param.opts, key=len) if error.param else ""
            raise _with_hint(error, f"give {name} once for each" if several else "") from error
        except click.UsageError as error:
            raise _with_hint(error, self._of_arguments(given) if "unexpected extra" in error.message else "") from error

    def _of_arguments(self, given: list[str]) -> str:
        """Remedy for a word that no argument takes."""
        words = [word for word in given if not word.startswith("-")]
        if any(param.name == "model" for param in self.params):
            return f"the file goes to --model: manigeo {self.name} --model {words[0]}"
        takes = [param for param in self.params if isinstance(param, click.Argument)]
        return (
            f"it takes one {takes[0].make_metavar(click.Context(self))}: run it once for each"
            if takes
            else "it takes options only"
        )


def _with_hint(error: click.UsageError, hint: str) -> click.UsageError:
    """The error, with what to type instead at the end of its message."""
    if not hint:
        return error
    said = error.message if isinstance(error, click.NoSuchOption) else error.format_message()
    return click.UsageError(f"{said.rstrip('.')}; {hint}", error.ctx)


def _where_it_is(command: str, option: str, given: list[str], near: Any) -> str:
    """Guess at what was meant: a near option, one with two dashes, or the same option of other commands."""
    if near:
        nearest = sorted(near, key=lambda name: -SequenceMatcher(None, name, option).ratio())
        return f"did you mean {' or '.join(nearest[:3])}?"
    long = next((f"-{word}" for word in given if word[:1] == "-" != word[1:2] and len(word) > 2), "")
    if long and not option.startswith("--"):
        return f"did you mean {long}?"
    from manigeo.cli.main import COMMANDS

    others = [name for name in COMMANDS if name != command and option in _options_of(name)]
    return f"it is an option of manigeo {', '.join(others)}" if others else ""


def _options_of(command: str) -> set[str]:
    found: click.Command = getattr(importlib.import_module(f"manigeo.cli.{command}"), f"{command}_command")
    return {option for param in found.params for option in (*param.opts, *param.secondary_opts)}


command: Callable[..., Any] = partial(click.command, cls=Command)
