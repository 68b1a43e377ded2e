"""A kernel in which notebooks run one after the other, so that what they import is imported once."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NEW = "import os\nos.chdir({folder!r})\n%reset -f\nget_ipython().execution_count = 0"


@contextlib.contextmanager
def started_kernel(folder: Path) -> Iterator[Any]:
    """The manager of a kernel with its files in ``folder``, not the user's, nor with the user's start-up files."""
    from jupyter_client.manager import KernelManager  # comes with nbclient

    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "commands.py").write_text("from tests.kernels import run_commands_here\nrun_commands_here()\n")
    environment = {name: value for name, value in os.environ.items() if name != "MANIGEO_FULL"}
    paths = [
        str(ROOT),
        str(FOLDER),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]  # what notebooks share lies beside them
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=environment | {"IPYTHONDIR": str(folder), "PYTHONPATH": os.pathsep.join(paths)})
    try:
        yield manager
    finally:
        manager.shutdown_kernel(now=True)


def execute(manager: Any, notebook: Any, folder: Path) -> None:
    """Run the notebook in ``folder``, in a namespace without the names of the one before."""
    import nbformat
    from nbclient import NotebookClient

    new = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NEW.format(folder=str(folder)))])
    for each in (new, notebook):
        client = NotebookClient(each, km=manager, timeout=600)
        try:
            client.execute()  # raises CellExecutionError with the cell's traceback
        finally:
            if client.kc is not None:
                client.kc.stop_channels()


def run_commands_here() -> None:
    """From here on a command that this process would start in another runs in this one."""
    start = subprocess.run

    def run_here(words: Any, *more: Any, cwd: Any = None, check: bool = False, **options: Any) -> Any:
        if words[:3] != [sys.executable, "-m", "manigeo"]:
            return start(words, *more, cwd=cwd, check=check, **options)
        from tests.command_line import run

        assert options == {"capture_output": True, "text": True}
        with contextlib.chdir(cwd or "."):
            done = subprocess.CompletedProcess(words, *run(*words[3:]))
        if check:
            done.check_returncode()
        return done

    subprocess.run = run_here  # type: ignore[assignment]
