"""Running commands in this process, as a user would type them."""

import contextlib
import io
import sys
from unittest.mock import patch

from manigeo.cli.main import main


def run(*words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``manigeo words...``."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["manigeo", *(str(word) for word in words)]
    with (
        patch.object(sys, "argv", argv),
        patch.object(sys, "path", [*sys.path]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exit:
            code = exit.code
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def done(*words: object) -> str:
    """Stdout of a command that must succeed."""
    code, out, err = run(*words)
    assert code == 0, err
    return out
