"""Examples of every command, as its help shows them; a test reads each of them as the command line would."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "train": (
        "manigeo train --data glyphs --permute 0.5 --out run",
        "manigeo train --data sentences --arch gpt --canaries 40,24,6 --optimizer adam --lr 0.002",
        "manigeo train --arch resnet18 --data cifar10:data --permute 0.3 --epochs 200 --device cuda",
        "manigeo train --from-checkpoint weights.pt --arch vgg16 --data folder:images --lr 0.001",
    ),
    "layers": (
        "manigeo layers --model run/checkpoints/last.pt",
        "manigeo layers --model weights.pt --arch package.module:factory --data folder:images --all",
    ),
    "extract": (
        "manigeo extract --model run/checkpoints/last.pt",
        "manigeo extract --model model.ckpt --arch net.py:make --data folder:images --labels labels.csv",
        "manigeo extract --model run/checkpoints/last.pt --kinds-from kinds.csv",
        "manigeo extract --model run/checkpoints/last.pt --layers 'features.*' --readout mean",
    ),
    "merge": ("manigeo merge acts.shard-*-of-4.h5 --out acts.h5",),
    "info": ("manigeo info acts.h5", "manigeo info acts.h5 --json"),
    "capacity": (
        "manigeo capacity acts.h5",
        "manigeo capacity acts.h5 --kinds permuted --kinds restored --bootstrap 1000 --jobs -1",
        "manigeo capacity acts.h5 --joint --null gaussian",
        "manigeo capacity acts.h5 --simulate --joint --classes 10 --dry-run",
        "manigeo capacity responses.mat --dataset V1 --dataset V4 --labels stimulus",
    ),
    "separability": (
        "manigeo separability acts.h5",
        "manigeo separability before.h5 last.h5 --measures probe --measures means --out separability.csv",
    ),
    "similarity": (
        "manigeo similarity before.h5 last.h5",
        "manigeo similarity seed0.h5 seed1.h5 --kinds permuted --kinds test --out seeds.csv",
    ),
    "examples": (
        "manigeo examples last.h5",
        "manigeo examples last.h5 --max-examples 1500 --k 30 --jobs -1",
        "manigeo examples last.h5 --run run --measures dynamics --measures margin",
        "manigeo examples last.h5 --joint --draws 30 --kinds unpermuted --kinds permuted",
    ),
    "memorization": (
        "manigeo memorization subsets/cells/*",
        "manigeo memorization subsets/cells/* --influence influence.csv",
        "manigeo memorization subsets/cells/* --kinds kinds.csv --memorized 0.5",
    ),
    "suffixes": (
        "manigeo suffixes --model gpt2.pt --arch net.py:net --data text:pages",
        "manigeo suffixes --model last.pt --kinds kinds.csv --within 2",
    ),
    "weights": ("manigeo weights run", "manigeo weights first.pt later.pt --out weights.csv"),
    "correlate": ("manigeo correlate run1 run2 run3 --measure rotation --gap accuracy",),
    "rewind": (
        "manigeo rewind run",
        "manigeo rewind run --each --pairs --checkpoints before,best",
        "manigeo rewind run --set h1,h2 --arch net.py:make --data folder:images",
    ),
    "reinit": (
        "manigeo reinit run",
        "manigeo reinit run --draws 0 --criticality",
        "manigeo reinit run --final-reset 3",
    ),
    "channels": (
        "manigeo channels run",
        "manigeo channels run --per-example channels.examples.csv",
        "manigeo channels run --kinds permuted --examples 20 --max-channels 100 --jobs 2",
    ),
    "lens": (
        "manigeo lens --model run/checkpoints/last.pt",
        "manigeo lens --model gpt2.pt --arch net.py:net --data text:pages --per-example lens.examples.csv",
    ),
    "gradients": ("manigeo gradients run", "manigeo gradients run --checkpoints init,before,last --sizes 200,2000"),
    "sweep": ("manigeo sweep wang2022 --show", "manigeo sweep grid.toml --jobs 4", "manigeo sweep wang2022 --dry-run"),
    "analyze": (
        "manigeo analyze run",
        "manigeo analyze model.ckpt --arch net.py:make --data folder:images --labels labels.csv",
        "manigeo analyze run --kinds-from kinds.csv",
        "manigeo analyze run --skip separability --per-class 20 --dry-run",
    ),
    "localize": ("manigeo localize run", "manigeo localize seed0 seed1 seed2 --out seeds.csv"),
    "benchmark": ("manigeo benchmark --cases 'mlp-*' --seeds 2", "manigeo benchmark --dry-run"),
    "plot": (
        "manigeo plot acts.capacity.csv",
        "manigeo plot before.capacity.csv last.capacity.csv --figure geometry --out geometry.pdf",
    ),
    "report": ("manigeo report run", "manigeo report seed0 seed1 seed2 --out seeds.html --title 'Three seeds'"),
    "demo": ("manigeo demo", "manigeo demo --data digits --out demo --seed 1"),
}
