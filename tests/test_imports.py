"""The dependency rule, in fresh interpreters: imports point down."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.installed


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_manigeo_imports_nothing_heavy():
    loaded = modules_after("import manigeo")
    assert not loaded & {"torch", "numpy", "pandas", "h5py", "seaborn", "manigeo_extract"}


def test_the_analysis_imports_no_torch():
    everything = "import manigeo; [getattr(manigeo, name) for name in dir(manigeo)]"
    loaded = modules_after(everything)
    assert "manigeo.capacity.mean_field" in loaded
    assert not loaded & {"torch", "manigeo_extract", "click"}


def test_numerics_import_no_files_figures_or_command_line():
    pure = ["capacity.mean_field", "capacity.theory", "capacity.anchors", "manifolds"]
    pure += ["separability.probe", "separability.margins", "separability.best", "measures"]
    loaded = modules_after(f"import {', '.join(f'manigeo.{module}' for module in pure)}")
    assert not loaded & {"torch", "h5py", "seaborn", "matplotlib", "click", "manigeo.activations", "manigeo.results"}


def test_the_command_line_starts_without_what_its_commands_need():
    loaded = modules_after("import manigeo.cli.main")
    assert not loaded & {"torch", "numpy", "pandas", "h5py", "seaborn", "sklearn"}


def test_only_activations_reads_hdf5_and_only_plots_draws():
    loaded = modules_after("import manigeo.results, manigeo.capacity.mean_field")
    assert not loaded & {"h5py", "seaborn", "matplotlib"}
    assert "h5py" in modules_after("import manigeo.activations")
    assert "seaborn" in modules_after("import manigeo.plots")
