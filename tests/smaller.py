"""Notebooks with less to train and to draw: that every cell runs needs no network that has learned what the text says.

The committed outputs are of the whole settings (``notebooks/build.py``); here the same cells run in the same order.
"""

from typing import Any

# What is written in a notebook, and what stands there in its place.
SMALLER: dict[str, dict[str, str]] = {
    "01_geometry": {
        "else 3_000": "else 300",
        "if FULL else 60": "if FULL else 6",
        "if FULL else 800": "if FULL else 100",
        "if FULL else (30, 40)": "if FULL else (10, 40)",
        "100, 200, 400, 800]": "100]",
    },
    "02_your_network": {
        # `localize` answers for a network that has memorized: seeds 0 to 3 know all labels from epoch 35 of 60 on
        "(40, 512, 32, 1)": "(12, 256, 60, 1)",
        '"train": 60': '"train": 20',
        "batch_size=64": "batch_size=16",
        "--per-class 30": "--per-class 8",
        "--classes 30": "--classes 8 --draws 20",
    },
    "03_neural_data": {
        "else 100": "else 20",
        "--draws 50": "--draws 10",
    },
    "carbonnelle2019": {
        "--data-arg classes=50 --data-arg per_class=40": "--data-arg classes=10 --data-arg per_class=10",
        "--batch-size 128 --epochs 15": "--batch-size 128 --epochs 2",
        "--batch-size 256 --epochs 30": "--batch-size 256 --epochs 2",
        "--data-arg classes=30 --data-arg per_class=40": "--data-arg classes=10 --data-arg per_class=10",
        "--batch-size 100 --epochs 20": "--batch-size 100 --epochs 2",
        "5 if FULL else 3": "5 if FULL else 2",
    },
    "centers": {
        "(0, 0.5, 0.7, 0.9, 0.95)": "(0, 0.9)",
        "P=120, N=500": "P=30, N=100",
        "depth=4 --arch-arg width=256 --epochs 40": "depth=2 --arch-arg width=128 --epochs 4",
        "--per-class 25": "--per-class 8",
        "kind, 25)": "kind, 8)",
        "simulated_capacity(clouds, 500)": "simulated_capacity(clouds, 50)",
    },
    "dyballa2024": {
        "range(2), 5, 8": "range(2), 1, 2",
        "(0, 1, 3, EPOCHS)": "(0, 1, EPOCHS)",
        "train=40 --data-arg validation=2 --data-arg test=30": "train=12 --data-arg validation=2 --data-arg test=12",
        "else 25}": "else 6}",
        'width=128", ["h?"]': 'width=128", ["h[34]"]',
        'width=12 --arch-arg batch_norm=true", ["conv?"]': 'width=12 --arch-arg batch_norm=true", ["conv[23]"]',
        '    "alexnet": ("--arch-arg width=8 --arch-arg batch_norm=true", ["conv?", "fc?"]),': "",
        'width=8", ["conv*_?"]': 'width=8", ["conv[45]_?"]',
        "{asked} {options}": "{asked} {options} --folds 3 --cluster-seeds 1",
        "SIZE, M, SCRATCH = 16, 30,": "SIZE, M, SCRATCH = 16, 12,",
        "LENGTH = 60 if FULL else 20": "LENGTH = 60 if FULL else 3",
        '"mlp": range(5 if FULL else 2)': '"mlp": range(1)',
    },
    "estimators": {
        "per_class=60 --arch-arg depth=4 --arch-arg width=384": "per_class=30 --arch-arg depth=2 --arch-arg width=128",
        "--epochs 20": "--epochs 2",
        "n_classes=30, per_class=20, also=[Joint(40), Simulated(200)]":
            "n_classes=12, per_class=8, also=[Joint(10), Simulated(50)]",
        "kind, 20, 0,": "kind, 8, 0,",
        "(X, 400)": "(X, 40)",
        "n_draws=9": "n_draws=1",
        "(10, 20, 40, 80)": "(10, 20)",
        "(128, 256, 512, 1024, 2048, 4096)": "(128, 256)",
    },
    "stephenson2021": {
        "classes=50 --data-arg per_class=60": "classes=20 --data-arg per_class=40",
        "--milestones 25 --epochs 32": "--milestones 3 --epochs 4",
        "mlp --arch-arg depth=6 --arch-arg width=256": "mlp --arch-arg depth=4 --arch-arg width=64",
        "--classes 20 --per-class 20 --draws 30": "--classes 12 --per-class 8 --draws 10 --centers keep",
        "SEEDS, EPOCHS = range(3)": "SEEDS, EPOCHS = range(2)",
    },
    "wang2022": {
        "--batch-size 32 --epochs 40": "--batch-size 32 --epochs 2",
        "classes=30 --data-arg per_class=60": "classes=10 --data-arg per_class=20",
        "--milestones 28 --epochs 35": "--milestones 2 --epochs 3",
        "400 if FULL else 100": "400 if FULL else 20",
        "OF_ONE = range(3)": "OF_ONE = range(2)",
        "1000 if FULL else 200": "1000 if FULL else 100",
    },
    "zhang2022": {
        "range(3)": "range(2)",
        "60 if FULL else 15": "60 if FULL else 2",
        "600 if FULL else 200": "600 if FULL else 20",
        "--data-arg test=100": "--data-arg test=20",
        "else 30} --data-arg validation=5": "else 5} --data-arg classes=10 --data-arg validation=5",
        "1,2,3,8": "1",
    },
}  # fmt: skip


def made_smaller(name: str, notebook: Any) -> Any:
    """The notebook with what :data:`SMALLER` has for it; each of its texts must stand in one place."""
    for text, instead in SMALLER.get(name, {}).items():
        cells = [cell for cell in notebook.cells if cell.cell_type == "code" and text in cell.source]
        assert sum(cell.source.count(text) for cell in cells) == 1, f"{name}: {text!r} must stand in one place"
        cells[0].source = cells[0].source.replace(text, instead)
    return notebook
