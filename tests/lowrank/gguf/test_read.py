"""A GGUF file as a base: the folder that it was made from, to the bit, or what ggml's formats left of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from child_process import run_python
from gguf_files import SHAPES, TINY, Type, random_tensors, write_gguf_file

from lowrank.adapters import add_adapter
from lowrank.adapters.files import load_adapter, save_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.fingerprint import fingerprint_of
from lowrank.checkpoints.load import load
from lowrank.checkpoints.open_base import open_base
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.gguf.export import export_base_gguf
from lowrank.gguf.header import TYPES, TensorInfo, read_header
from lowrank.gguf.names import to_meta
from lowrank.gguf.read import config_of, open_gguf, read_tensor
from lowrank.gguf.writer import tensor_name
from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.config import ModelConfig, RopeScaling
from lowrank.model.config_json import hf_scaling
from lowrank.model.llama import Llama

BASES = ("meta-tiny-mha", "meta-tiny-gqa-mp2", "hf-tiny-qlora/base")
QUANTIZABLE = (Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1)  # by the gguf package

pytestmark = pytest.mark.filterwarnings("ignore:.*token numbers only:UserWarning")


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Path:
    return write_gguf_file(tmp_path_factory.mktemp("dense") / "tiny.gguf", random_tensors())


@pytest.fixture(scope="module")
def q4_1(tmp_path_factory) -> Path:
    return write_gguf_file(tmp_path_factory.mktemp("q4_1") / "tiny-q4_1.gguf", random_tensors(), type=Type.Q4_1)


def codes(model: Llama) -> dict[str, torch.Tensor]:
    """Every tensor of every quantized linear."""
    return {
        f"{path}.{name}": tensor
        for path, module in model.named_modules()
        if isinstance(module, QuantLinear)
        for name, tensor in module.quantized.tensors().items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_an_exported_base_is_read_back_with_its_logits(
    name: str, golden: Path, hf_reference, tmp_path: Path, assert_logits_equal
) -> None:
    path = export_base_gguf(golden / name, tmp_path / "base.gguf", dtype="fp32")
    tokens = hf_reference["tokens"]
    assert_logits_equal(load(path, "fp32")(tokens), load(golden / name, "fp32")(tokens))


def test_a_dense_file_of_a_hugging_face_folder_is_that_folder_to_the_bit(hf_folder: Path, tmp_path: Path) -> None:
    base = hf_folder / "base"
    path = export_base_gguf(base, tmp_path / "base.gguf", dtype="fp32")
    ours, theirs = dict(open_base(path).tensors()), dict(open_base(base).tensors())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name].float()) for name in ours)
    one, two = codes(load(path, "nf4-dq")), codes(load(base, "nf4-dq"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert fingerprint_of(open_base(path)) == fingerprint_of(open_base(base))


@pytest.mark.parametrize(
    "scaling", [RopeScaling("linear", 4.0), RopeScaling("llama3", 8.0), RopeScaling("llama3", 32.0)]
)
def test_scaled_rope_goes_out_and_comes_back(scaling: RopeScaling, hf_folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(hf_folder / "base", base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"rope_theta": 5e5, "rope_scaling": hf_scaling(scaling)}))
    path = export_base_gguf(base, tmp_path / "base.gguf", dtype="fp32")
    assert open_base(path).config == open_base(base).config and open_base(path).config.rope_scaling == scaling
    tokens = torch.randint(3, 60, (1, 40), generator=torch.Generator().manual_seed(0))
    assert torch.equal(load(path, "fp32")(tokens), load(base, "fp32")(tokens))


def test_config_and_rounded_constants_are_those_of_the_header(dense: Path) -> None:
    assert open_gguf(dense).config == ModelConfig(
        dim=256,
        n_layers=1,
        n_heads=4,
        n_kv_heads=2,
        hidden_dim=256,
        vocab_size=48,
        norm_eps=1e-5,
        rope_theta=10_000.0,
        max_seq_len=64,
        tie_embeddings=True,
        rope_layout="half",
    )


@pytest.mark.slow
@pytest.mark.parametrize("type", [Type.F16, Type.BF16, *QUANTIZABLE], ids=lambda type: type.name)
def test_a_model_in_each_type_has_the_logits_of_transformers(type: Type, tmp_path: Path, assert_logits_equal) -> None:
    """transformers reads GGUF by itself: names, rows and configuration are found there a second time."""
    transformers = pytest.importorskip("transformers")
    tensors = random_tensors()
    tensors["output.weight"] = tensors["token_embd.weight"]
    path = write_gguf_file(tmp_path / "tiny.gguf", tensors, type=type)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32).eval()
    tokens = torch.randint(48, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert_logits_equal(load(path, "fp32")(tokens), theirs(tokens).logits)


def halves(stored: bytes) -> float:
    return float(np.frombuffer(stored, np.float16)[0])


def by_hand(type: Type, block: bytes) -> list[float]:
    """One block, number by number, after the formulas of ggml-quants.c."""
    d = halves(block[:2])
    if type == Type.Q8_0:
        return [d * int(np.int8(byte)) if byte < 128 else d * (byte - 256) for byte in block[2:]]
    if type == Type.Q4_0:
        return [d * ((byte >> shift & 15) - 8) for shift in (0, 4) for byte in block[2:]]
    if type == Type.IQ4_NL:
        levels = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
        return [d * levels[byte >> shift & 15] for shift in (0, 4) for byte in block[2:]]
    if type == Type.Q4_1:
        return [d * (byte >> shift & 15) + halves(block[2:4]) for shift in (0, 4) for byte in block[4:]]
    if type in (Type.Q5_0, Type.Q5_1):
        at = 2 if type == Type.Q5_0 else 4
        high, low = int.from_bytes(block[at : at + 4], "little"), block[at + 4 :]
        five = [(low[i % 16] >> (4 * (i // 16)) & 15) | (high >> i & 1) << 4 for i in range(32)]
        return [d * (q - 16) for q in five] if type == Type.Q5_0 else [d * q + halves(block[2:4]) for q in five]
    if type == Type.Q4_K:  # 8 groups of 32: six bits of a scale and of a minimum each
        dmin, scales, low = halves(block[2:4]), block[4:16], block[16:]
        numbers = []
        for group in range(8):
            if group < 4:
                scale, minimum = scales[group] & 63, scales[group + 4] & 63
            else:
                scale = scales[group + 4] & 15 | scales[group - 4] >> 6 << 4
                minimum = scales[group + 4] >> 4 | scales[group] >> 6 << 4
            part = low[32 * (group // 2) : 32 * (group // 2) + 32]
            numbers += [d * scale * (byte >> 4 * (group % 2) & 15) - dmin * minimum for byte in part]
        return numbers
    assert type == Type.Q6_K  # 16 groups of 16: four low and two high bits, a scale of eight bits
    low, high, scales, d = block[:128], block[128:192], np.frombuffer(block[192:208], np.int8), halves(block[208:])
    numbers = []
    for i in range(256):
        half, place = divmod(i, 128)
        quarter, column = divmod(place, 32)
        nibble = low[64 * half + 32 * (quarter % 2) + column] >> 4 * (quarter // 2) & 15
        two = high[32 * half + column] >> 2 * quarter & 3
        numbers.append(d * int(scales[i // 16]) * ((nibble | two << 4) - 32))
    return numbers


@pytest.mark.parametrize("type", [*QUANTIZABLE, Type.IQ4_NL, Type.Q4_K, Type.Q6_K], ids=lambda type: type.name)
def test_a_block_is_what_its_formula_says(type: Type, tmp_path: Path) -> None:
    numbers, nbytes = gguf.GGML_QUANT_SIZES[type]
    generator = np.random.default_rng(1)
    rows = generator.integers(0, 256, (3, 2, nbytes), dtype=np.uint8)
    for start in (208,) if type == Type.Q6_K else (0, 2) if type in (Type.Q4_1, Type.Q5_1, Type.Q4_K) else (0,):
        rows[..., start : start + 2] = generator.normal(0, 0.01, (3, 2, 1)).astype(np.float16).view(np.uint8)
    (tmp_path / "blocks").write_bytes(rows.tobytes())
    info = TensorInfo("t", int(type), (3, 2 * numbers), 0, rows.nbytes)
    expected = [number for block in rows.reshape(-1, nbytes) for number in by_hand(type, block.tobytes())]
    torch.testing.assert_close(
        read_tensor(tmp_path / "blocks", info).flatten(), torch.tensor(expected), rtol=3e-7, atol=1e-9
    )
    assert TYPES[int(type)].name == type.name


def test_a_quantized_file_quantizes_to_what_it_loads_as(q4_1: Path, tmp_path: Path) -> None:
    folder = quantize_folder(q4_1, tmp_path / "out", "nf4-dq")
    one, two = load(q4_1), load(folder)
    assert one.source == two.source
    first, second = codes(one), codes(two)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads((folder / "lowrank.json").read_text())["gguf"]["types"] == "Q4_1"
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["bnb_4bit_quant_type"] == "nf4"


def test_a_hat_knows_a_quantized_file_from_its_full_precision_and_from_another_format(
    dense: Path, q4_1: Path, tmp_path: Path
) -> None:
    model = load(q4_1, "fp32")
    add_adapter(model, "hat", rank=2)
    save_adapter(model, "hat", tmp_path / "hat")
    load_adapter(load(quantize_folder(q4_1, tmp_path / "nf4", "nf4")), "hat", tmp_path / "hat")
    others = {"dense.gguf": Type.F32, "q8_0.gguf": Type.Q8_0}
    for name, type in others.items():
        path = write_gguf_file(tmp_path / name, random_tensors(), type=type)
        with pytest.raises(ValueError, match="made for the base"):
            load_adapter(load(path, "fp32"), "hat", tmp_path / "hat")


def test_a_merge_into_a_file_is_a_folder_with_its_config(q4_1: Path, tmp_path: Path) -> None:
    model = load(q4_1, "fp32")
    add_adapter(model, "hat", rank=2)
    save_adapter(model, "hat", tmp_path / "hat")
    merged = merge_folder(q4_1, tmp_path / "hat", tmp_path / "merged", "fp32").folder
    assert open_base(merged).config == open_base(q4_1).config
    ours, theirs = dict(open_base(merged).tensors()), dict(open_base(q4_1).tensors())
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def changed(tmp_path: Path, changes: dict[str, Any], **options: Any) -> Path:
    values = {key: value for key, value in (TINY | changes).items() if value is not None}
    return write_gguf_file(tmp_path / "x.gguf", random_tensors(), values, **options)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"llama.block_count": None}, "llama.block_count is missing"),
        ({"llama.block_count": 2_000_000_000}, "llama.block_count is 2,000,000,000, with 11 tensors in all"),
        ({"llama.block_count": "one"}, "llama.block_count must be one number, got 'one'"),
        ({"llama.attention.head_count": [4, 4]}, r"llama.attention.head_count must be one number, got array"),
        ({"llama.attention.head_count": 0}, "must be at least 1, got 0"),
        ({"llama.feed_forward_length": 512}, r"blk.0.ffn_gate.weight must have shape \[512, 256\], got \[256, 256\]"),
        ({"llama.expert_count": 8}, "llama.expert_count must be 0 or absent, got 8"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type must be 'linear' or absent, got 'yarn'"),
        ({"llama.rope.dimension_count": 32}, "llama.rope.dimension_count must be that of a head, 64, got 32"),
        ({"llama.attention.sliding_window": 64}, "llama.attention.sliding_window is not known here"),
        ({"general.type": "adapter"}, "is a GGUF file of general.type 'adapter', not of a model"),
        ({"split.count": 3}, "is one of 3 parts of a model"),
    ],
)
def test_a_header_that_is_no_llama_is_refused_by_its_key(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        open_gguf(changed(tmp_path, changes)).parameters()


def test_another_architecture_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"general.architecture must be 'llama', got 'qwen2'"):
        open_gguf(changed(tmp_path, {}, architecture="qwen2"))


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("blk.0.attn_q.bias", (256,), "blk.0.attn_q.bias is no tensor of a Llama"),
        ("blk.0.ffn_gate_inp.weight", (8, 256), "blk.0.ffn_gate_inp.weight is no tensor of a Llama"),
        ("blk.7.attn_q.weight", (256, 256), "layers.7.attention.wq.weight is no parameter"),
    ],
)
def test_a_foreign_tensor_is_named(name: str, shape: tuple[int, ...], says: str, tmp_path: Path) -> None:
    tensors = random_tensors() | {name: np.zeros(shape, np.float32)}
    with pytest.raises(ValueError, match=says):
        open_gguf(write_gguf_file(tmp_path / "x.gguf", tensors)).parameters()


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = random_tensors()
    del tensors["blk.0.ffn_up.weight"]
    with pytest.raises(ValueError, match=r"layers.0.feed_forward.w3.weight is missing"):
        open_gguf(write_gguf_file(tmp_path / "x.gguf", tensors)).parameters()


def test_a_file_that_is_no_gguf_is_no_base(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"x.gguf: is a file, and no GGUF"):
        open_base(tmp_path / "x.gguf")


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_factors_of_frequencies_are_known_as_llama_3s(factor: float, tmp_path: Path) -> None:
    """The loop of llama.cpp's converter, number by number."""
    theta, factors = 500_000.0, []
    for i in range(0, 64, 2):
        wavelength = 2 * np.pi * theta ** (i / 64)
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / 3
            factors.append(1 / ((1 - smooth) / factor + smooth))
    tensors = random_tensors() | {"rope_freqs.weight": np.array(factors, np.float32)}
    path = write_gguf_file(tmp_path / "x.gguf", tensors, TINY | {"llama.rope.freq_base": theta})
    scaling = config_of(read_header(path))["rope_scaling"]
    assert scaling["rope_type"] == "llama3" and scaling["factor"] == pytest.approx(factor)
    tensors["rope_freqs.weight"][3] = 5
    with pytest.raises(ValueError, match=r"rope_freqs.weight must hold Llama 3's factors"):
        config_of(read_header(write_gguf_file(tmp_path / "y.gguf", tensors)))


def test_names_go_both_ways() -> None:
    for name in ModelConfig(64, 2, 4, 4, 64, 64).parameter_shapes():
        assert to_meta(tensor_name(name, 2)) == name
    assert {tensor_name(to_meta(name) or "", 2) for name in SHAPES} == set(SHAPES)
    assert to_meta("blk.00.attn_q.weight") is None and to_meta("output") is None


@pytest.mark.slow
def test_the_verbs_take_a_file(dense: Path, tmp_path: Path) -> None:
    said = run_python("-m", "lowrank", "quantize", str(dense), str(tmp_path / "out")).stdout
    assert "nf4-dq, model.safetensors" in said
    said = run_python("-m", "lowrank", "inspect", "base", str(dense)).stdout
    assert "block linears in float32" in said
