"""``command``: a directive that shows a command as click describes it to its users, an anchor at every option."""

import inspect

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from manigeo.cli.main import cli

UNWRAPPED = "\b\n"  # click's sign of a paragraph whose lines stay as they are
WIDTH = 88


class Command(SphinxDirective):
    """A section of its own: usage, what the command does, its options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        command = cli.get_command(click.Context(cli), name)
        if command is None:
            raise self.error(f"manigeo has no command {name}")
        context = click.Context(command, info_name=f"manigeo {name}", terminal_width=WIDTH)
        section = nodes.section(
            "", nodes.title("", f"manigeo {name}"), ids=[f"manigeo-{name}"], names=[f"manigeo-{name}"]
        )
        section += [usage(context), *paragraphs(command.help or ""), options(context, name)]
        self.state.document.note_explicit_target(section)
        return [section]


def usage(context: click.Context) -> nodes.Node:
    formatter = context.make_formatter()
    formatter.write_usage(context.command_path, " ".join(context.command.collect_usage_pieces(context)), prefix="")
    return verbatim(formatter.getvalue().rstrip())


def paragraphs(text: str) -> list[nodes.Node]:
    """The help text, wrapped where click would wrap it."""
    blocks = inspect.cleandoc(text).split("\n\n") if text else []
    return [
        verbatim(block.removeprefix(UNWRAPPED)) if block.startswith(UNWRAPPED) else nodes.paragraph("", block)
        for block in blocks
    ]


def verbatim(text: str) -> nodes.Node:
    return nodes.literal_block(text, text, language="text")


def options(context: click.Context, name: str) -> nodes.Node:
    """List of the options as ``--help`` has them: names with what they take, then what they do, with defaults and ranges."""
    listed = nodes.definition_list(classes=["options"])
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or not record[1]:  # an argument, which the usage names
            continue
        term = nodes.term("", "", nodes.literal("", record[0]), ids=[f"{name}-{parameter.name}"])
        listed += nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph("", record[1])))
    return listed


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command", Command)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
