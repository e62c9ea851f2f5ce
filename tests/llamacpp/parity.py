"""Files that are written here, read by llama.cpp; and files of ggml's formats, read here.  `make test-llamacpp`

The library is built by tests/llamacpp/build.sh, once, outside the repository. Not among the tests of `make test`.
"""

import json
import os
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from error_bounds import assert_logits_are_equal
from gguf_files import Type
from random_hat import make_hat
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from lowrank.adapters import use_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.config_files import hf_config
from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.jinja_form import jinja_form
from lowrank.data.encoding.template import find
from lowrank.gguf.export import export_adapter_gguf, export_base_gguf
from lowrank.gguf.header import TensorInfo, read_header
from lowrank.gguf.read import read_tensor
from lowrank.gguf.tokenizer_files import PRE_TOKENIZERS
from lowrank.model.config import RopeScaling
from lowrank.model.llama import Llama
from lowrank.model.param_names import to_hf

READER = Path(os.environ["LOWRANK_LLAMACPP"]) / "reader"
LENGTH = 60

pytestmark = pytest.mark.filterwarnings("ignore:.*take and give token numbers only:UserWarning")


def reader(*arguments: object) -> str:
    done = subprocess.run([READER, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def their_logits(model: Path, tokens: Tensor, scratch: Path, *lora: object) -> Tensor:
    (scratch / "in").write_bytes(tokens.to(torch.int32).numpy().tobytes())
    reader("logits", model, scratch / "in", scratch / "out", *lora)
    return torch.from_numpy(np.fromfile(scratch / "out", np.float32).reshape(len(tokens), -1))


@torch.inference_mode()
def our_logits(model: Llama, tokens: Tensor) -> Tensor:
    logits: Tensor = model(tokens[None])[0]
    return logits


def shape_folder(make_llama: Any, folder: Path, **changes: Any) -> Path:
    """A random model of a shape as a Hugging Face folder; ggml wants rows of 32s."""
    model = make_llama(dim=128, n_heads=4, hidden_dim=192, **{"rope_layout": "half", **changes})
    folder.mkdir()
    save_file({to_hf(name): value.clone() for name, value in model.named_parameters()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf_config(model.config, {}, "fp32")))
    return folder


SHAPES: dict[str, dict[str, Any]] = {
    "mha": {"n_kv_heads": 4},
    "gqa": {"n_kv_heads": 2},
    "mqa": {"n_kv_heads": 1},
    "tied": {"tie_embeddings": True},
    "head_dim above dim / heads": {"own_head_dim": 48},
    "head_dim below dim / heads": {"own_head_dim": 16},
    "linear scaling": {"rope_scaling": RopeScaling("linear", 4.0)},
    "Llama 3.1": {"rope_theta": 500_000.0, "rope_scaling": RopeScaling("llama3", 8.0)},
    "theta": {"rope_theta": 500_000.0, "norm_eps": 1e-6},
}


@pytest.mark.filterwarnings("ignore:.*norm_eps is 1e-06")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_base_and_a_hat_of_each_shape(shape: str, make_llama, random_tokens, tmp_path: Path) -> None:
    base = shape_folder(make_llama, tmp_path / "base", **SHAPES[shape])
    tokens = random_tokens(LENGTH)
    path = export_base_gguf(base, tmp_path / "base.gguf", dtype="fp32")
    assert_logits_are_equal(our_logits(load(base, "fp32"), tokens), their_logits(path, tokens, tmp_path))
    model = make_hat(base, tmp_path / "hat", notes={"template": find("alpaca").to_json()})
    hat = export_adapter_gguf(tmp_path / "hat", base, tmp_path / "hat.gguf")
    assert_logits_are_equal(our_logits(model, tokens), their_logits(path, tokens, tmp_path, hat, 1))
    use_adapter(model, {"hat": 0.5})
    assert_logits_are_equal(our_logits(model, tokens), their_logits(path, tokens, tmp_path, hat, 0.5))


@pytest.mark.parametrize("options", [{"rslora": True}, {"targets": ["wq", "wv"]}, {"rank": 1}], ids=str)
def test_hats_of_other_options(options: dict[str, Any], make_llama, random_tokens, tmp_path: Path) -> None:
    base, tokens = shape_folder(make_llama, tmp_path / "base"), random_tokens(LENGTH)
    model = make_hat(base, tmp_path / "hat", notes={"template": find("alpaca").to_json()}, **options)
    path = export_base_gguf(base, tmp_path / "base.gguf", dtype="fp32")
    hat = export_adapter_gguf(tmp_path / "hat", base, tmp_path / "hat.gguf")
    assert_logits_are_equal(our_logits(model, tokens), their_logits(path, tokens, tmp_path, hat, 1))


def test_the_embedded_base_merged_and_in_four_bits(embedded: Path, tmp_path: Path) -> None:
    text = make_documents(1, seed=3, split="test")[0].output
    tokens = torch.tensor(load_tokenizer(embedded).encode(text, bos=True)[:LENGTH])
    model = make_hat(embedded, tmp_path / "hat", notes={"template": find("alpaca").to_json()}, alpha=2)
    merged = merge_folder(embedded, tmp_path / "hat", tmp_path / "merged", "fp32").folder
    path = export_base_gguf(merged, tmp_path / "merged.gguf", dtype="fp32")
    assert_logits_are_equal(our_logits(model, tokens), their_logits(path, tokens, tmp_path))
    assert reader("template", path) == jinja_form(find("alpaca"))
    four_bit = quantize_folder(embedded, tmp_path / "nf4", "nf4-dq")
    path = export_base_gguf(four_bit, tmp_path / "nf4.gguf", dtype="fp32")
    model = load(four_bit, dtype=torch.float32)
    assert_logits_are_equal(our_logits(model, tokens), their_logits(path, tokens, tmp_path))


def their_ids(model: Path, texts: list[str], scratch: Path) -> list[list[int]]:
    (scratch / "texts").write_bytes(b"".join(text.encode() + b"\0" for text in texts))
    reader("tokens", model, scratch / "texts", scratch / "ids")
    return [list(map(int, line.split())) for line in (scratch / "ids").read_text().splitlines()]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    random = Random(0)
    letters = [*"abcdefghinorstxyzABZ 0123456789.,'$%()-\n\t", *"éßﬁ½中한🙂\u00a0", "<s>", "</s>", "<|im_end|>", "'ll"]
    drawn = ["".join(random.choices(letters, k=random.randrange(1, 60))) for _ in range(3000)]
    return [*(entry.output for entry in make_documents(30, seed=3, split="test")), *drawn]


def test_llama_cpp_cuts_texts_as_sentencepiece_does_but_where_spaces_follow_each_other(
    embedded: Path, texts: list[str], tmp_path: Path
) -> None:
    """The embedded base's tokenizer makes one space of several, and none at either end; llama.cpp never does."""
    path = export_base_gguf(embedded, tmp_path / "base.gguf")
    tokenizer = load_tokenizer(embedded)
    plain = [text for text in texts if "  " not in text and text == text.strip(" ")]
    assert len(plain) > 1500
    assert their_ids(path, plain, tmp_path) == [tokenizer.encode(text, bos=True) for text in plain]
    assert their_ids(path, ["a  b"], tmp_path) != [tokenizer.encode("a  b", bos=True)]


@pytest.mark.parametrize("name", ["llama-bpe", "smollm", "gpt-2"])
def test_llama_cpp_cuts_texts_as_byte_level_bpe_does(name: str, make_llama, texts: list[str], tmp_path: Path) -> None:
    """A tokenizer.json with the pre-tokenizer of each family, trained here."""
    pre = PRE_TOKENIZERS[name]
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre.ignore_merges))
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name != "llama-bpe")
    cut = pre_tokenizers.Digits(True) if name == "smollm" else None
    if name == "llama-bpe":
        cut = pre_tokenizers.Split(Regex(pre.patterns[0]), "isolated")
    tokenizer.pre_tokenizer = letters if cut is None else pre_tokenizers.Sequence([cut, letters])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(["<|bos|>", "<|im_end|>"])
    rows = tokenizer.get_vocab_size() + 8  # padded
    base = shape_folder(make_llama, tmp_path / "base", vocab_size=rows)
    tokenizer.save(str(base / "tokenizer.json"))
    config = {"bos_token": "<|bos|>", "eos_token": "<|im_end|>", "add_bos_token": True, "chat_template": "{{ 1 }}"}
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="has no piece for"):
        ours = load_tokenizer(base)
        path = export_base_gguf(base, tmp_path / "base.gguf")
    assert read_header(path).values["tokenizer.ggml.pre"] == name
    assert their_ids(path, texts, tmp_path) == [ours.encode(text, bos=True) for text in texts]
    assert reader("template", path) == "{{ 1 }}"


@pytest.mark.parametrize(
    "type",
    [Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_NL, Type.BF16],
    ids=lambda type: type.name,
)
def test_what_ggml_has_quantized_is_read_as_ggml_reads_it(type: Type, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(0, 0.05, (8, 512)).astype(np.float32)
    (tmp_path / "in").write_bytes(rows.tobytes())
    reader("blocks", int(type), 512, tmp_path / "in", tmp_path / "out")
    info = TensorInfo("t", int(type), rows.shape, 0, (tmp_path / "out").stat().st_size)
    theirs = torch.from_numpy(np.fromfile(tmp_path / "out.f32", np.float32).reshape(rows.shape))
    # A product and a sum in float32 each: fused into one rounding there, or not.
    torch.testing.assert_close(read_tensor(tmp_path / "out", info).float(), theirs, rtol=3e-7, atol=1e-8)
