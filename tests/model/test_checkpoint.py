"""Tensors out of folders: shards joined, and every way in which a folder can be wrong told by name."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lowrank.model.checkpoint import open_checkpoint
from lowrank.model.config_json import read_config
from lowrank.model.param_names import to_meta
from lowrank.model.tensor_file import load_pth


@pytest.fixture
def copy(golden: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A reference folder to spoil."""
    return lambda name: Path(shutil.copytree(golden / name, tmp_path / "base"))


def read(folder: Path) -> dict[str, Tensor]:
    return dict(open_checkpoint(folder).tensors())


def edit_pth(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_pth(path).items()}
    change(tensors)
    torch.save(tensors, path)


def edit_safetensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("folder", ["meta-tiny-mha", "meta-tiny-gqa-mp2", "hf-tiny-qlora/base"])
def test_every_parameter_comes_once_and_has_its_shape(folder: str, golden: Path) -> None:
    names = [name for name, _ in open_checkpoint(golden / folder).tensors()]
    assert len(names) == len(set(names))
    tensors, config = read(golden / folder), read_config(golden / folder)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == config.parameter_shapes()


def test_shards_are_joined_along_the_axis_that_meta_split(golden: Path) -> None:
    base = golden / "meta-tiny-gqa-mp2"
    halves, whole = [load_pth(path) for path in sorted(base.glob("*.pth"))], read(base)
    by_rows = ("wq", "wk", "wv", "w1", "w3", "output")
    for name, tensor in whole.items():
        if tensor.dim() == 2:
            axis = 0 if name.split(".")[-2] in by_rows else 1
            assert torch.equal(tensor, torch.cat([half[name] for half in halves], dim=axis)), name


@pytest.mark.parametrize("folder", ["meta-tiny-mha", "meta-tiny-gqa-mp2"])
def test_a_vocabulary_of_minus_1_is_read_off_the_embedding(folder: str, copy) -> None:
    base = copy(folder)
    edit_json(base / "params.json", vocab_size=-1)
    assert open_checkpoint(base).config.vocab_size == 512
    assert read(base)["output.weight"].shape == (512, 128)


def test_an_embedding_split_by_rows_is_joined_as_well(copy) -> None:
    base = copy("meta-tiny-gqa-mp2")
    whole = read(base)["tok_embeddings.weight"].clone()
    for path, rows in zip(sorted(base.glob("*.pth")), whole.chunk(2), strict=True):
        edit_pth(path, lambda tensors, rows=rows: tensors.update({"tok_embeddings.weight": rows.clone()}))
    edit_json(base / "params.json", vocab_size=-1)
    assert torch.equal(read(base)["tok_embeddings.weight"], whole)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("consolidated.00.pth", "consolidated.00.pth is missing"),
        ("consolidated.01.pth", "do not make .*a shard is missing"),
    ],
)
def test_a_missing_shard_is_told(missing: str, reason: str, copy) -> None:
    base = copy("meta-tiny-gqa-mp2")
    (base / missing).unlink()
    with pytest.raises(ValueError, match=reason):
        read(base)


def test_shards_of_different_models_are_refused(copy, golden: Path) -> None:
    base = copy("meta-tiny-gqa-mp2")
    shutil.copy(golden / "meta-tiny-mha" / "consolidated.00.pth", base / "consolidated.01.pth")
    with pytest.raises(ValueError, match="shards of different models"):
        read(base)


@pytest.mark.parametrize("norm", ["norm.weight", "layers.1.ffn_norm.weight"])
def test_copies_that_differ_between_shards_are_refused(norm: str, copy) -> None:
    base = copy("meta-tiny-gqa-mp2")
    edit_pth(base / "consolidated.01.pth", lambda tensors: tensors[norm].add_(1))
    with pytest.raises(ValueError, match=f"{norm}: shards of different models: the copies differ"):
        read(base)


@pytest.mark.parametrize("shard", ["consolidated.00.pth", "consolidated.01.pth"])
def test_a_tensor_missing_from_one_shard_is_named(shard: str, copy) -> None:
    base = copy("meta-tiny-gqa-mp2")
    edit_pth(base / shard, lambda tensors: tensors.pop("layers.1.attention.wo.weight"))
    with pytest.raises(ValueError, match=r"layers.1.attention.wo.weight"):
        read(base)


@pytest.mark.parametrize("shard", ["consolidated.00.pth", "consolidated.01.pth"])
def test_a_foreign_tensor_in_any_shard_is_named(shard: str, copy) -> None:
    base = copy("meta-tiny-gqa-mp2")
    edit_pth(base / shard, lambda tensors: tensors.update({"layers.0.attention.wq.bias": torch.zeros(64)}))
    with pytest.raises(ValueError, match=r"layers.0.attention.wq.bias"):
        read(base)


def test_meta_rope_buffer_is_passed_over(golden: Path) -> None:
    assert "rope.freqs" in load_pth(golden / "meta-tiny-mha" / "consolidated.00.pth")
    assert "rope.freqs" not in read(golden / "meta-tiny-mha")


@pytest.mark.parametrize(("key", "value"), [("dim", 64), ("vocab_size", 500), ("multiple_of", 256), ("n_kv_heads", 2)])
def test_params_of_another_model_are_refused(key: str, value: int, copy) -> None:
    base = copy("meta-tiny-mha")
    edit_json(base / "params.json", **{key: value})
    with pytest.raises(ValueError, match=r"do not make .*params.json is another model's"):
        read(base)


@pytest.mark.parametrize("layers", [1, 3])
def test_another_number_of_layers_is_refused(layers: int, copy) -> None:
    base = copy("meta-tiny-mha")
    edit_json(base / "params.json", n_layers=layers)
    with pytest.raises(ValueError, match=rf"layers\.{min(layers, 2)}\."):
        read(base)


@pytest.mark.parametrize("kept", [0, 100, 500_000], ids=lambda kept: f"{kept}-bytes")
def test_a_truncated_pth_is_told(kept: int, copy) -> None:
    path = copy("meta-tiny-mha") / "consolidated.00.pth"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"consolidated.00.pth: not a whole .pth file"):
        read(path.parent)


class Touches:
    """A pickle that makes a file when it is loaded by a reader that executes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pth_is_never_executed(save, copy, tmp_path: Path) -> None:
    path, trace = copy("meta-tiny-mha") / "consolidated.00.pth", tmp_path / "executed"
    save({"norm.weight": Touches(trace)}, path)
    with pytest.raises(ValueError, match=r"consolidated.00.pth"):
        read(path.parent)
    assert not trace.exists()
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists()


@pytest.mark.parametrize("value", [[1], {"norm.weight": 1.0}, torch.zeros(3)], ids=["list", "number", "tensor"])
def test_a_pth_of_anything_but_tensors_by_name_is_refused(value: object, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "consolidated.00.pth")
    with pytest.raises(ValueError, match="must hold tensors by name"):
        load_pth(tmp_path / "consolidated.00.pth")


@pytest.mark.parametrize("kept", [0, 5, 300, 500_000], ids=lambda kept: f"{kept}-bytes")
def test_a_truncated_safetensors_file_is_told(kept: int, copy) -> None:
    path = copy("hf-tiny-qlora/base") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model.safetensors: not a whole safetensors file"):
        read(path.parent)


def test_a_tensor_missing_from_safetensors_is_named(copy) -> None:
    path = copy("hf-tiny-qlora/base") / "model.safetensors"
    edit_safetensors(path, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ValueError, match=r"layers.1.feed_forward.w3.weight"):
        read(path.parent)


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_proj.bias", "visual.patch.weight", "model.layers.2.mlp.up_proj.weight"]
)
def test_a_foreign_tensor_in_safetensors_is_named(name: str, copy) -> None:
    path = copy("hf-tiny-qlora/base") / "model.safetensors"
    edit_safetensors(path, lambda tensors: tensors.update({name: torch.zeros(128)}))
    with pytest.raises(ValueError, match=r"bias|visual.patch.weight|layers.2.feed_forward.w3.weight"):
        read(path.parent)


def test_a_tensor_of_another_shape_is_named(copy) -> None:
    path = copy("hf-tiny-qlora/base") / "model.safetensors"
    edit_safetensors(path, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(64)}))
    with pytest.raises(ValueError, match=r"norm.weight must have shape \[128\], got \[64\]"):
        read(path.parent)


def test_the_inverse_frequencies_of_old_files_are_passed_over(copy) -> None:
    path = copy("hf-tiny-qlora/base") / "model.safetensors"
    old = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.zeros(16) for layer in (0, 1)}
    edit_safetensors(path, lambda tensors: tensors.update(old))
    assert read(path.parent).keys() == read_config(path.parent).parameter_shapes().keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_head_that_is_stored_though_the_config_ties_it_is_read_once_if_it_is_the_embedding(dtype, copy) -> None:
    base = copy("hf-tiny-qlora/base")
    edit_json(base / "config.json", tie_word_embeddings=True)
    embedding = load_file(base / "model.safetensors")["model.embed_tokens.weight"].bfloat16()
    head = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding.to(dtype, copy=True)}
    edit_safetensors(base / "model.safetensors", lambda tensors: tensors.update(head))
    checkpoint = open_checkpoint(base)
    assert checkpoint.config.tie_embeddings
    assert "output.weight" not in dict(checkpoint.tensors())


def test_a_head_of_its_own_is_used_and_told_of_where_the_config_ties_it(copy) -> None:
    base = copy("hf-tiny-qlora/base")
    edit_json(base / "config.json", tie_word_embeddings=True)
    with pytest.warns(UserWarning, match="base: the config ties the output head .* hold another head: that is used"):
        checkpoint = open_checkpoint(base)
    assert not checkpoint.config.tie_embeddings
    head = load_file(base / "model.safetensors")["lm_head.weight"]
    assert torch.equal(dict(checkpoint.tensors())["output.weight"], head)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    "key",
    [
        "model.embed_tokens.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.0.mlp.down_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    ],
)
def test_a_number_that_is_none_is_refused_by_the_tensor_that_holds_it(key: str, value: float, copy) -> None:
    path = copy("hf-tiny-qlora/base") / "model.safetensors"
    edit_safetensors(path, lambda tensors: tensors[key].view(-1)[7:8].fill_(value))
    said = rf"{to_meta(key)}: weights must be finite, got {value} at \[.*7\] .in the file: {key}.$"
    with pytest.raises(ValueError, match=said):
        read(path.parent)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float64, torch.int64, torch.uint8], ids=str)
def test_a_weight_in_another_type_is_refused_by_its_name(dtype: torch.dtype, copy) -> None:
    path = copy("hf-tiny-qlora/base") / "model.safetensors"
    key = "model.layers.1.mlp.up_proj.weight"
    edit_safetensors(path, lambda tensors: tensors.update({key: tensors[key].to(dtype)}))
    with pytest.raises(ValueError, match=rf"w3.weight must be stored as float32, bfloat16 or float16, got {dtype}"):
        open_checkpoint(path.parent).parameters()


@pytest.mark.parametrize(
    ("suffix", "dtype", "needed"),
    [
        ("absmax", torch.float32, torch.uint8),
        ("nested_absmax", torch.float16, torch.float32),
        ("quant_map", torch.bfloat16, torch.float32),
        ("nested_quant_map", torch.float16, torch.float32),
        ("quant_state.bitsandbytes__nf4", torch.int32, torch.uint8),
    ],
)
def test_statistics_in_another_type_are_refused_before_any_weight_is_read(suffix, dtype, needed, copy) -> None:
    path = copy("hf-tiny-qlora/base-bnb-nf4-dq") / "model.safetensors"
    key = f"model.layers.0.mlp.up_proj.weight.{suffix}"
    edit_safetensors(path, lambda tensors: tensors.update({key: tensors[key].to(dtype)}))
    with pytest.raises(ValueError, match=rf"model.safetensors: {key} must be stored as {needed}, got {dtype}"):
        open_checkpoint(path.parent).parameters()


def test_int8_codes_in_the_tiles_of_a_gpu_are_refused(copy) -> None:
    path = copy("hf-tiny-qlora/base") / "model.safetensors"
    stem = "model.layers.1.mlp.up_proj"
    int8 = {"weight": torch.ones(384, 128, dtype=torch.int8), "SCB": torch.ones(384)}
    for order, said in ((0, ""), (2, rf"{stem}.weight_format must be 0 .*, got 2")):
        parts = {**int8, "weight_format": torch.tensor(order, dtype=torch.uint8)}
        edit_safetensors(
            path, lambda tensors, parts=parts: tensors.update({f"{stem}.{k}": v for k, v in parts.items()})
        )
        if not said:
            assert open_checkpoint(path.parent).is_quantized
            open_checkpoint(path.parent).parameters()
            continue
        with pytest.raises(ValueError, match=said):
            open_checkpoint(path.parent).parameters()


@pytest.fixture
def indexed(copy) -> Path:
    """The Hugging Face base in two files and an index."""
    base = copy("hf-tiny-qlora/base")
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    weight_map = {}
    for number, keys in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({key: tensors[key] for key in keys}, base / file)
        weight_map |= dict.fromkeys(keys, file)
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return base


def test_files_of_an_index_are_one_model(indexed: Path, hf_folder: Path) -> None:
    whole = read(hf_folder / "base")
    assert read(indexed).keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in read(indexed).items())


def test_a_missing_file_of_an_index_is_named(indexed: Path) -> None:
    (indexed / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002.safetensors is missing"):
        read(indexed)


@pytest.mark.parametrize("file", ["../outside.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ""])
def test_an_index_cannot_lead_out_of_its_folder(file: str, indexed: Path) -> None:
    edit_json(indexed / "model.safetensors.index.json", weight_map={"model.norm.weight": file})
    save_file({"model.norm.weight": torch.zeros(1)}, indexed.parent / "outside.safetensors")
    with pytest.raises(ValueError, match=r"index.json: a shard must be a plain file name"):
        read(indexed)


@pytest.mark.parametrize("weight_map", [{}, None, [], {"model.norm.weight": 3}], ids=str)
def test_an_index_without_a_map_is_refused(weight_map: object, indexed: Path) -> None:
    edit_json(indexed / "model.safetensors.index.json", weight_map=weight_map)
    with pytest.raises(ValueError, match=r"index.json"):
        read(indexed)


def test_a_tensor_that_stands_in_two_files_is_refused(indexed: Path) -> None:
    edit_safetensors(
        indexed / "model-00001-of-00002.safetensors",
        lambda tensors: tensors.update({"model.norm.weight": torch.zeros(128)}),
    )
    edit_safetensors(
        indexed / "model-00002-of-00002.safetensors",
        lambda tensors: tensors.update({"model.norm.weight": torch.ones(128)}),
    )
    with pytest.raises(ValueError, match=r"norm.weight"):
        read(indexed)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_folder_that_lacks_a_file_names_it(missing: str, copy) -> None:
    base = copy("hf-tiny-qlora/base")
    (base / missing).unlink()
    with pytest.raises(ValueError, match=missing):
        open_checkpoint(base)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        open_checkpoint(tmp_path / "nowhere")


def test_whether_a_folder_is_quantized(golden: Path) -> None:
    folders = ("meta-tiny-mha", "hf-tiny-qlora/base", "hf-tiny-qlora/base-bnb-nf4-dq")
    assert [open_checkpoint(golden / folder).is_quantized for folder in folders] == [False, False, True]
