"""What needs transformers and Captum, which take seconds to import: another program's hooks, and texts.

Captum's ``LayerActivation`` on the same networks gives the same numbers, to the last bit.
"""

import importlib.util
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from manigeo import open_activations, read_results
from manigeo.errors import InputError, UsageError
from manigeo.kinds import KINDS
from manigeo_extract.batches import Batch, called
from manigeo_extract.data.datasets import DataSet, Permutation, load_data, permute_labels
from manigeo_extract.data.grammar import sentences
from manigeo_extract.interventions.lens import find_blocks, lens_answers
from manigeo_extract.interventions.scoring import Examiner
from manigeo_extract.models import IMAGE_MODELS, build_model, complete_args
from manigeo_extract.recording.hooks import record_layers
from manigeo_extract.recording.layers import hooked, list_layers, select_layers
from manigeo_extract.recording.next_token import answering_contexts
from tests.command_line import done, run
from tests.networks import Calls

missing = [name for name in ("captum", "transformers") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not installed: pip install --group dev")


def captum_activations(model: nn.Module, batch: Batch, paths: list[str]) -> list[torch.Tensor]:
    """What Captum records of the last call of each module, one forward pass for all."""
    from captum.attr import LayerActivation

    names, tensors = ([], (batch,)) if isinstance(batch, torch.Tensor) else (list(batch), tuple(batch.values()))

    def forward(*inputs):
        return model(**dict(zip(names, inputs, strict=True))) if names else model(*inputs)

    modules = [model.get_submodule(path) for path in paths]
    found = LayerActivation(forward, modules).attribute(tuple(tensor.clone() for tensor in tensors))
    return [output[0] if isinstance(output, tuple) else output for output in found]


def returning_tensors(model: nn.Module, batch: Batch) -> set[str]:
    """Names of the modules that return a tensor or a tuple of nothing else."""
    found: dict[nn.Module, bool] = {}

    def note(module, args, output):
        parts = output if type(output) is tuple else (output,)
        found[module] = all(isinstance(part, torch.Tensor) for part in parts)

    with hooked(dict.fromkeys(model.modules(), note)), torch.no_grad():
        called(model, batch)
    return {name for name, module in model.named_modules() if found.get(module)}


def largest_difference(model: nn.Module, batch: Batch) -> float:
    """Over the last calls of all modules whose output Captum can clone."""
    model.eval()
    cloneable = returning_tensors(model, batch)
    layers = [layer for layer in list_layers(model, batch) if layer.path in cloneable and layer.batched]
    last = {layer.path: layer for layer in layers}
    with record_layers(model, layers) as forward:
        ours = forward(batch)
    theirs = captum_activations(model, batch, list(last))
    assert len(theirs) == len(last) > 0
    pairs = [(ours[layer.name], other) for layer, other in zip(last.values(), theirs, strict=True)]
    assert all(mine.shape == other.shape for mine, other in pairs)
    return max(float((mine - other).abs().max()) for mine, other in pairs)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        Calls(
            lambda m, x: m.head(m.relu(m.conv(m.relu(m.conv(x)))).mean((2, 3))),
            conv=nn.Conv2d(3, 3, 3, padding=1), relu=nn.ReLU(inplace=True), head=nn.Linear(3, 2),
        ),
        Calls(
            lambda m, x: m.head(m.attention(*[x.flatten(2)] * 3)[0]),
            attention=nn.MultiheadAttention(256, 2, batch_first=True), head=nn.Linear(256, 2),
        ),
    ],
    ids=["in place", "reused", "tuple"],
)  # fmt: skip
def test_activations_of_awkward_modules_are_those_of_captum(model):
    assert largest_difference(model, torch.randn(3, 3, 16, 16)) == 0


@pytest.mark.parametrize("arch", sorted(IMAGE_MODELS))
def test_activations_of_the_reference_networks_are_those_of_captum(arch):
    model = build_model(arch, complete_args(arch, {}, (3, 32, 32), 5))
    assert largest_difference(model, torch.randn(2, 3, 32, 32)) == 0


TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TINY["attn_implementation"] = "eager"  # attention then returns its weights, and not None, which Captum cannot clone


def vision(name: str) -> nn.Module:
    import transformers as hf

    if name == "vit":
        return hf.ViTForImageClassification(hf.ViTConfig(**TINY, image_size=32, patch_size=8))
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "layer_type": "basic"}
    return hf.ResNetForImageClassification(hf.ResNetConfig(**sizes))


def text(name: str) -> nn.Module:
    import transformers as hf

    if name == "bert":
        return hf.BertForSequenceClassification(hf.BertConfig(**TINY, vocab_size=50, num_labels=3))
    special = {"attn_implementation": "eager", "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    return hf.GPT2ForSequenceClassification(hf.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50, **special))


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_activations_of_image_networks_of_transformers_are_those_of_captum(name):
    assert largest_difference(vision(name), torch.randn(3, 3, 32, 32)) == 0


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_activations_of_text_networks_of_transformers_are_those_of_captum(name):
    mask = torch.ones(3, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    batch = {"input_ids": torch.randint(2, 50, (3, 7)) * mask, "attention_mask": mask}
    assert largest_difference(text(name), batch) == 0


# --------------------------------------------------------------------------------------------------------------- texts
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "was", "very", "good", "bad", "dull"]
LABELS = ("bad", "dull", "good")


def write_tokenizer(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')


def reviews(n: int, seed: int) -> pd.DataFrame:
    """Texts of 1 to 8 words, ``n`` for each class."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS[5:], size=rng.integers(1, 9))) for _ in range(3 * n)]
    return pd.DataFrame({"text": texts, "label": np.tile(LABELS, n)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reviews")
    write_tokenizer(folder)
    reviews(20, seed=0).to_csv(folder / "train.csv", index=False)
    reviews(4, seed=1).to_csv(folder / "test.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> DataSet:
    return load_data(f"hf:{folder}")


def test_tokens_are_the_numbers_of_the_words_and_the_mask_leaves_padding_out(data, folder):
    texts = pd.concat([pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "test.csv")])["text"].tolist()
    length = 2 + max(len(text.split()) for text in texts)
    batch = data.inputs(slice(None))
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in batch.items()} == dict.fromkeys(
        ["input_ids", "attention_mask"], (torch.int64, (72, length))
    )
    train = data.split != "test"  # validation was set apart from the training file
    order = np.where(train, data.index, data.index + 60)
    for ids, mask, row in zip(*batch.values(), order, strict=True):
        expected = [2, *(WORDS.index(word) for word in texts[row].split()), 3]
        assert ids.tolist() == expected + [0] * (length - len(expected))
        assert mask.tolist() == [1] * len(expected) + [0] * (length - len(expected))
    assert (data.class_names, data.input_shape) == (LABELS, (length,))
    assert load_data(f"hf:{folder}", data.args).fingerprint == data.fingerprint


def test_permuted_labels_of_texts_are_those_of_images_with_the_same_labels(data, folder, tmp_path):
    numbers = {name: number for number, name in enumerate(LABELS)}
    y = {split: pd.read_csv(folder / f"{split}.csv")["label"].map(numbers).to_numpy() for split in ("train", "test")}
    x = {split: np.random.default_rng(0).random((len(labels), 4, 4)) for split, labels in y.items()}
    np.savez(tmp_path / "images.npz", x_train=x["train"], y_train=y["train"], x_test=x["test"], y_test=y["test"])
    images = load_data(f"npz:{tmp_path / 'images.npz'}")
    permutation = Permutation(0.5, "derangement", seed=3)
    assert permute_labels(data, permutation).equals(permute_labels(images, permutation))


def test_lines_of_json_tabs_and_one_file_hold_the_same_texts(data, folder, tmp_path):
    write_tokenizer(tmp_path)
    for split, suffix in (("train", "jsonl"), ("test", "tsv")):
        table = pd.read_csv(folder / f"{split}.csv")
        if suffix == "jsonl":
            table.to_json(tmp_path / f"{split}.jsonl", orient="records", lines=True)
        else:
            table.to_csv(tmp_path / f"{split}.tsv", sep="\t", index=False)
    assert load_data(f"hf:{tmp_path}").fingerprint == data.fingerprint
    one = load_data(f"hf:{tmp_path / 'train.jsonl'}", {"test": 0.25, "validation": 0})
    assert [len(one.rows(split)) for split in ("train", "test")] == [45, 15]


def test_texts_are_cut_at_the_length_and_columns_have_any_name(folder, tmp_path):
    table = pd.read_csv(folder / "train.csv").rename(columns={"text": "sentence"})
    table.assign(label=[LABELS.index(label) for label in table["label"]]).to_csv(tmp_path / "one.csv", index=False)
    found = load_data(f"hf:{tmp_path / 'one.csv'}", {"tokenizer": str(folder), "text": "sentence", "length": 4})
    assert found.input_shape == (4,)
    assert found.class_names == ("0", "1", "2")


def test_a_tokenizer_without_padding_pads_and_a_text_without_a_token_is_refused(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"end": 0, "good": 1, "bad": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "end"}'
    )
    table = pd.DataFrame({"text": ["good good", "bad"] * 10, "label": [1, 0] * 10})
    table.to_csv(tmp_path / "one.csv", index=False)
    batch = load_data(f"hf:{tmp_path / 'one.csv'}").inputs(slice(None))
    assert {(*ids, *mask) for ids, mask in zip(*map(torch.Tensor.tolist, batch.values()), strict=True)} == {
        (1, 1, 1, 1), (2, 0, 1, 0)
    }  # fmt: skip
    table.assign(text=["good", ""] * 10).to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(InputError, match="expected a token in every text, found none in ''"):
        load_data(f"hf:{tmp_path / 'one.csv'}")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "test.csv").unlink(), "expected train and test"),
        (
            lambda f: (f / "train.csv").write_text("words,label\ngood,1\n"),
            "expected the column 'text'; there are: words",
        ),
        (lambda f: (f / "train.csv").write_bytes(b"\xff\xfe\x00\x81"), "expected a table of texts"),
        (lambda f: (f / "test.csv").write_text("text,label\ngood,awful\n"), "classes of the training texts, .*'awful'"),
        (lambda f: [(f / name).unlink() for name in ("vocab.txt", "tokenizer_config.json")], "a tokenizer's files"),
        (lambda f: (f / "tokenizer_config.json").write_text("{"), "expected a tokenizer's files"),
    ],
)
def test_files_that_are_no_texts_are_refused_by_what_is_wrong(tmp_path, break_it, message):
    write_tokenizer(tmp_path)
    for split in ("train", "test"):
        reviews(3, seed=0).to_csv(tmp_path / f"{split}.csv", index=False)
    assert load_data(f"hf:{tmp_path}").n_classes == 3
    break_it(tmp_path)
    with pytest.raises(InputError, match=message):
        load_data(f"hf:{tmp_path}")


def test_without_transformers_one_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'manigeo\[hf\]'"):
        load_data(f"hf:{folder}")


# ------------------------------------------------------------------------------------------------ from a file to a file
NETWORK = """
import torch
from transformers import BertConfig, BertForSequenceClassification

def make(classes=3):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(**sizes, vocab_size=12, num_labels=classes))
"""


@pytest.fixture
def bert(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("network.py").write_text(NETWORK)
    model = build_model("network.py:make", {}, seed=0).eval()
    torch.save(model.state_dict(), "bert.pt")
    return model


def bert_words(folder: Path) -> list[object]:
    return ["--model", "bert.pt", "--arch", "network.py:make", "--data", f"hf:{folder}", "--permute", 0.5]


def test_a_transformer_is_extracted_token_by_token_as_a_convolutional_network_is(bert, data, folder):
    done("extract", *bert_words(folder), "--readout", "token-mean", "--out", "acts.h5")
    batch = data.inputs(slice(None))
    with open_activations("acts.h5") as acts, torch.no_grad():
        assert acts.kinds == KINDS
        assert acts.layers[0] == "bert.embeddings.word_embeddings"
        assert acts.layers[-1] == "classifier"
        assert "bert.embeddings.position_embeddings" not in acts.layers  # one row for all examples
        name = "bert.encoder.layer.1.output.dense"
        assert (acts.layer(name).readout, acts.layer("classifier").readout) == ("token-mean", "flatten")
        assert (acts.layer(name).feature_shape, acts.layer("classifier").feature_shape) == ((32,), (3,))
        with record_layers(bert, select_layers(list_layers(bert, batch), ["*"])) as forward:
            whole = forward(batch)
        mask = batch["attention_mask"][:, :, None]
        mean = (whole[name] * mask).sum(1) / mask.sum(1)
        rows = {(split, index): row for row, (split, index) in enumerate(zip(data.split, data.index, strict=True))}
        places = [rows[key] for key in zip(acts.examples["split"], acts.examples["index"], strict=True)]
        everything = np.arange(len(acts.examples))
        # float32 sums over 12 tokens and 32 features in another order
        np.testing.assert_allclose(acts.rows(name, everything), mean[places].numpy(), atol=1e-5)
        logits = bert(**batch).logits[places].numpy()
        np.testing.assert_allclose(acts.rows("classifier", everything), logits, atol=1e-5)
        for kind in KINDS:
            assert [cloud.shape[1] for cloud in acts.manifolds(name, kind)] == [32] * 3


def test_layers_of_a_transformer_are_listed_by_type_and_readout(bert, folder):
    table = done(
        "layers",
        *bert_words(folder),
        "--types",
        "Linear,LayerNorm",
        "--layers",
        "*layer.0*",
        "--readout",
        "class-token",
    )
    lines = table.splitlines()[1:-1]
    assert len(lines) == 8
    assert all("32 (class-token)" in line or "64 (class-token)" in line for line in lines)


def test_a_transformer_that_torch_fx_cannot_trace_is_told_of_hooks(bert, folder):
    code, _, err = run("layers", *bert_words(folder), "--backend", "fx")
    assert code == 2
    assert "torch.fx cannot trace this network: " in err
    assert "take --backend hooks" in err


def causal(**args):
    import transformers as hf

    return hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=32, n_layer=2, n_head=2, **args))


def test_a_causal_model_of_transformers_goes_the_whole_way_on_a_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "import transformers as hf\n"
        "def net():\n"
        "    return hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=256, n_positions=16))\n"
    )
    text = ["--data", "sentences", *arguments(n=60, length=16, scored=20), "--canaries", "8,14,3"]
    done("train", *text, "--arch", "net.py:net", "--epochs", 1, "--optimizer", "adam", "--out", "run")
    done("extract", "--model", "run/checkpoints/last.pt", "--arch", "net.py:net", "--per-class", 4, "--out", "acts.h5")
    with open_activations("acts.h5") as acts:
        assert acts.kinds == ("test", "memorized", "typical", "control")
        assert acts.layer("transformer.h.1.mlp.c_proj").readout == "last-token"
        assert acts.scores["memorized"]["n"] > 0
    done(
        "rewind", "run", "--arch", "net.py:net", "--each", "--group-by", r"h\.[0-9]+\.(?:attn|mlp)", "--checkpoints", 0
    )
    table = read_results("rewind.csv")
    assert {"h.0.attn", "h.1.mlp"} <= set(table["layer"])


def arguments(**args):
    return [word for name, value in args.items() for word in ("--data-arg", f"{name}={value}")]


def test_a_model_of_transformers_that_does_not_go_with_a_text_is_refused():
    import transformers as hf

    data = load_data("sentences", {"n": 20, "length": 16})
    with pytest.raises(
        UsageError, match=r"takes up to 8 tokens, .* have 16: give shorter ones \(--data-arg length=8\)"
    ):
        answering_contexts(causal(n_positions=8, vocab_size=256), data)
    with pytest.raises(UsageError, match="the network knows 200 tokens, and the tokenizer of sentences has 256"):
        answering_contexts(causal(n_positions=16, vocab_size=200), data)
    headless = hf.GPT2Model(hf.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=256, n_positions=16))
    with pytest.raises(UsageError, match=r"next token .* shape \(2, 15, 32\): give one with its language head"):
        answering_contexts(headless, data)


def test_a_tokenizer_of_hugging_face_makes_the_tokens_of_a_text(folder, tmp_path):
    (tmp_path / "a.txt").write_text("the film was very good " * 30)
    data = load_data(f"text:{tmp_path / 'a.txt'}", {"tokenizer": str(folder), "length": 8, "prefix": 2})
    assert len(data.class_names) == len(set(data.class_names)) == data.n_classes
    tokens = data.sequences.tokens[0].tolist()
    assert data.sequences.tokenizer.decode(tokens) == " ".join(data.class_names[token] for token in tokens)


PRETRAINED = """
from transformers import GPT2Config, GPT2LMHeadModel

SIZES = {"vocab_size": 300, "n_positions": 16, "n_embd": 48, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}


def net():
    return GPT2LMHeadModel(GPT2Config(**SIZES, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
"""


def test_a_pretrained_language_model_tells_itself_what_it_memorized(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("language.py").write_text(PRETRAINED)
    text = sentences(60, seed=1)
    Path("text.txt").write_text(text)
    sequences = torch.tensor([*text.encode()])[: len(text) // 16 * 16].view(-1, 16)
    torch.manual_seed(0)
    model = runpy.run_path("language.py")["net"]()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(150):  # another program's training, on some sequences of the text
        optimizer.zero_grad()
        model(input_ids=sequences[:50], labels=sequences[:50]).loss.backward()
        optimizer.step()
    model.save_pretrained("gpt")
    words = ["--model", "gpt/model.safetensors", "--arch", "language.py:net", "--data", "text:text.txt"]
    words += [word for arg in ("length=16", "scored=1000", "test=0", "validation=0") for word in ("--data-arg", arg)]
    said = done("suffixes", *words, "--kinds", "kinds.csv", "--within", 1)
    table = pd.read_csv("suffixes.csv")
    assert len(table) == len(sequences)
    known = table[table["distance"] <= 1]["sequence"]
    assert (known < 50).sum() >= 40  # of the 50 that it was trained on
    assert (known >= 50).sum() <= 10  # of 107 others, which resemble them
    assert f"{8 * len(known):,} memorized" in said
    done("extract", *words, "--kinds-from", "kinds.csv", "--layers", "transformer.h.1", "--out", "acts.h5")
    assert open_activations("acts.h5").kinds == ("memorized", "typical")
    done("capacity", "acts.h5", "--draws", 20, "--out", "capacity.csv")
    assert {"memorized", "typical"} == set(read_results("capacity.csv")["kind"]) - {""}


def test_the_head_of_a_language_model_of_hugging_face_reads_each_of_its_blocks():
    import transformers as hf

    data = load_data("sentences", {"n": 20, "length": 16, "prefix": 4, "scored": 3})
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "n_positions": 16, "n_embd": 48, "n_layer": 3, "n_head": 2}
    config = hf.GPT2Config(
        **sizes, bos_token_id=0, eos_token_id=0, initializer_range=0.3
    )  # other answers in each block
    net = answering_contexts(hf.GPT2LMHeadModel(config).eval(), data)
    blocks = find_blocks(net, data.inputs(slice(0, 2)))
    assert [block.name for block in blocks] == [f"transformer.h.{i}" for i in range(3)]
    examiner = Examiner(data, permute_labels(data, Permutation()))
    answers = lens_answers(net, examiner, blocks)
    ids, mask = data.inputs(examiner.rows).values()
    with torch.no_grad():
        first = net.transformer(ids.long(), output_hidden_states=True).hidden_states[1]
        scores = net.lm_head(net.transformer.ln_f(first))[torch.arange(len(ids)), mask.sum(1) - 1]
    own = examiner.answers(net).log_p.argmax(dim=1).numpy()
    assert (answers[0] == scores.argmax(dim=1).numpy()).all()
    assert (answers[-1] == own).all()
    assert (answers[0] != own).mean() > 0.5


OF_HUGGING_FACE = {
    "Llama": {"intermediate_size": 32}, "GPTNeoX": {"intermediate_size": 32}, "Mamba": {}, "Gemma2": {"head_dim": 8},
}  # fmt: skip


@pytest.mark.parametrize("name", OF_HUGGING_FACE)
def test_the_lens_finds_the_blocks_of_language_models_beside_shortcuts(name):
    import transformers as hf

    data = load_data("sentences", {"n": 8, "length": 16, "prefix": 4, "scored": 1})
    sizes = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 2} | OF_HUGGING_FACE[name]
    sizes |= (
        {} if name == "Mamba" else {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 16}
    )
    net = hf.AutoModelForCausalLM.from_config(getattr(hf, f"{name}Config")(**sizes)).eval()
    blocks = find_blocks(answering_contexts(net, data), data.inputs(slice(0, 2)))
    assert [block.name.rpartition("layers.")[2] for block in blocks] == ["0", "1"]
