"""The dependency rule, in fresh interpreters: imports point down."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.installed


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_capacities_need_few_parts_of_scipy_and_no_scikit_learn():
    loaded = modules_after("import manigeo.layerwise.geometry")
    assert not loaded & {"scipy.optimize", "scipy.stats", "scipy.integrate", "sklearn"}


def test_extraction_and_interventions_import_no_compiler_statistics_or_figures():
    data = "read_digits(); from manigeo_extract.models import IMAGE_MODELS, bare_model"
    shapes = "[bare_model(name, {'input_shape': (3, 32, 32), 'n_classes': 10}) for name in IMAGE_MODELS]"
    shapes += "; bare_model('gpt', {'input_shape': (15,), 'n_classes': 10})"
    modules = ("opening.networks", "recording.extraction", "interventions.exchanges", "interventions.channels")
    imported = "; ".join(f"import manigeo_extract.{name}" for name in modules)
    loaded = modules_after(f"{imported}; from manigeo_extract.data.loaders import read_digits; {data}; {shapes}")
    assert "torch" in loaded
    assert not loaded & {"torch._dynamo", "scipy.stats", "scipy.optimize", "sklearn", "matplotlib"}


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
    pure += ["separability.probe", "separability.margins", "separability.best", "layerwise.separability"]
    loaded = modules_after(f"import {', '.join(f'manigeo.{module}' for module in pure)}")
    assert not loaded & {"torch", "h5py", "seaborn", "matplotlib", "click", "manigeo.activations", "manigeo.results"}


def test_the_command_line_starts_without_what_its_commands_need():
    loaded = modules_after("import manigeo.cli.main")
    assert not loaded & {"torch", "numpy", "pandas", "h5py", "seaborn", "sklearn"}


def test_only_activations_reads_hdf5_and_only_plots_draws():
    loaded = modules_after("import manigeo.results, manigeo.capacity.mean_field")
    assert not loaded & {"h5py", "seaborn", "matplotlib"}
    assert "h5py" in modules_after("import manigeo.activations")
    of_reports = modules_after("import manigeo.report, manigeo.plots")
    assert "seaborn" in of_reports
    assert "sklearn" not in of_reports  # half a second of every report


# lowest first; a folder is one room, and rooms in one line do not import each other
LEVELS = {
    "manigeo": """
        errors kinds
        randomness vocabulary storage
        faces
        manifolds
        inputs
        capacity
        separability dimension weights correlation similarity
        activations results
        runs
        execution
        layerwise
        per_example
        localization
        text plots
        report
        cli
    """,
    "manigeo_extract": """
        batches machine resolve
        data devices models
        recording
        files
        training
        interventions
        gradients weights planting
        opening
        live
    """,
}


def imported_rooms(package: str) -> Iterator[tuple[str, str, str]]:
    """Room, other room of the same package that it imports, and the file; imports inside functions as well."""
    root = Path(importlib.import_module(package).__file__).parent
    for path in root.rglob("*.py"):
        room = path.relative_to(root).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in filter(None, modules):
                top, *rest = module.split(".")
                if top == package and rest and rest[0] != room:
                    yield room, rest[0], str(path.relative_to(root))


@pytest.mark.parametrize("package", LEVELS)
def test_imports_point_down_from_room_to_room(package):
    level = {room: number for number, line in enumerate(LEVELS[package].split("\n")) for room in line.split()}
    inside = [found for found in imported_rooms(package) if found[0] not in ("__init__", "__main__")]
    assert not {(room, other, path) for room, other, path in inside if level[room] <= level[other]}
    assert len(inside) > 20


@pytest.mark.parametrize(("package", "most"), [("manigeo", 13), ("manigeo_extract", 6)])
def test_few_files_lie_outside_the_rooms(package, most):
    root = Path(importlib.import_module(package).__file__).parent
    assert len(list(root.glob("*.py"))) <= most


def test_a_module_can_be_imported_under_its_earlier_name():
    code = (
        "from manigeo_extract.recorder import Recorder as a; from manigeo_extract import Recorder as b; print(a is b)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("package", LEVELS)
def test_a_package_says_that_it_has_types(package):
    assert (Path(importlib.import_module(package).__file__).parent / "py.typed").is_file()
