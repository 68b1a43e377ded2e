"""``manigeo``: the group of commands, and how errors end one."""

import importlib
import os
import sys
import traceback

import click

from manigeo import __version__
from manigeo.cli.commands import WIDTH
from manigeo.cli.inputs_kept import keeping_inputs
from manigeo.cli.signals import exit_code_of, interruptible
from manigeo.cli.streams import shown
from manigeo.errors import ManigeoError, in_short
from manigeo.execution.start import leave_out_working_directory
from manigeo.storage.files import failure_of_files

# group -> name -> what it does; the command stands in the module of its name, which is imported when it runs
SECTIONS = {
    "From a network to activations": {
        "train": "Train a network on partly permuted labels.",
        "layers": "List the layers of a model, with shapes and sizes.",
        "extract": "Write the activations of a model's layers to acts.h5.",
        "merge": "Join the shards of an extraction to one file.",
        "info": "Show the contents of an activation file.",
    },
    "Measures": {
        "capacity": "Mean-field capacity, radius and dimension, by layer and kind.",
        "separability": "Probes, neighbours, clusters, margins, and the best layer.",
        "similarity": "CKA and Procrustes distance of layers in two activation files.",
        "examples": "Depth, margin and load of single examples.",
        "memorization": "Which examples networks know only if trained on them.",
        "suffixes": "Which sequences a language model continues as written.",
        "weights": "Movement of the layers of a run: rotation, distances.",
        "correlate": "Movement of layers against the generalization gap of runs.",
    },
    "Interventions": {
        "rewind": "Set layers back to an earlier epoch, and score the four kinds.",
        "reinit": "Re-initialise, re-randomise, zero each layer: is it critical?",
        "channels": "Fewest channels that flip an example, and their layers.",
        "lens": "Answers that the head reads out of each block: the logit lens.",
        "gradients": "Label-dependent and independent parts of the gradient.",
    },
    "Answers": {
        "analyze": "All analyses of a run or a checkpoint, up to the report.",
        "localize": "Where is it memorized? Every method's answer.",
        "plot": "Draw figures from results: geometry, sweeps, weights ...",
        "report": "One HTML page of runs: answer, gate, figures, tables.",
        "sweep": "Train and analyze every cell of a grid; resumable.",
        "benchmark": "How often each method finds layers known to have memorized.",
        "demo": "Train, extract, analyse and draw, from nothing, in minutes.",
    },
}
COMMANDS = {name: line for section in SECTIONS.values() for name, line in section.items()}


COMPLETION = "_MANIGEO_COMPLETE"


class LazyGroup(click.Group):
    """Lists commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"manigeo.cli.{cmd_name}"), f"{cmd_name}_command")
        return keeping_inputs(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(list(commands.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from difflib import get_close_matches

        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0].lower(), COMMANDS)
            hint = f"did you mean {', '.join(near)}?" if near else "see manigeo --help"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH})
@click.version_option(__version__, "--version", message="manigeo %(version)s")
@click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error (anywhere in the line)."
)
def cli() -> None:
    """Find where in a deep network memorization happens.

    \b
    In two lines, for a checkpoint of manigeo train:
      manigeo extract --model run/checkpoints/last.pt
      manigeo capacity acts.h5
    And from nothing, with a figure:
      manigeo demo
    """


def main() -> None:
    """Run a command; a user's mistake is one line on stderr and an exit code, see :mod:`manigeo.errors`."""
    leave_out_working_directory()
    if COMPLETION in os.environ:  # a shell asks, and takes bytes
        cli.main([], prog_name="manigeo", complete_var=COMPLETION)
    with shown():
        code = _run([word for word in sys.argv[1:] if word != "--debug"], "--debug" in sys.argv)
        sys.stdout.flush()
        sys.stderr.flush()
    sys.exit(code)


def _run(args: list[str], debug: bool) -> int:
    """The exit code of a command, whose failure is told of."""
    try:
        with interruptible():
            result = cli.main(args or ["--help"], standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except ManigeoError as error:
        code = _complain(str(error), error.exit_code, debug)
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        code = _complain(error.format_message() + hint, error.exit_code, debug)
    except click.ClickException as error:
        code = _complain(error.format_message(), error.exit_code, debug)
    except (KeyboardInterrupt, click.Abort) as error:
        if isinstance(error.__context__, EOFError):  # of a file that ends too early, which click takes for an interrupt
            return _complain(f"unexpected EOFError: {error.__context__} (manigeo --debug shows where)", 1, debug)
        code = exit_code_of(error)
        code = _complain("interrupted" if code == 130 else "terminated", code, debug=False)
    except MemoryError as error:
        code = _complain(f"not enough memory: {error or 'ask for less at a time'}", 1, debug)
    except OSError as error:  # a full disk, a place without permission
        code = _complain(failure_of_files(error), 1, debug)
    except Exception as error:
        code = _complain(f"unexpected {type(error).__name__}: {error} (manigeo --debug shows where)", 1, debug)
    return code


def _complain(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"manigeo: {in_short(' '.join(message.split()))}", err=True)
    return code
