"""Which of the files in a folder are its model: what people's folders hold beside it, left over or by mistake."""

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lowrank.model.checkpoint import open_checkpoint

SAFETENSORS, BIN = "model.safetensors", "pytorch_model.bin"
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def tensors(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "hf-tiny-qlora/base" / SAFETENSORS)


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    """A Hugging Face folder that has no weights yet."""
    (tmp_path / "base").mkdir()
    return Path(shutil.copy(golden / "hf-tiny-qlora/base/config.json", tmp_path / "base")).parent


def save(tensors: dict[str, Tensor], path: Path) -> None:
    torch.save(tensors, path) if path.suffix == ".bin" else save_file(tensors, path)


def shard(tensors: dict[str, Tensor], folder: Path, single: str, *, index: bool = True) -> list[Path]:
    """The tensors in two files, by the name of the single one, and their index."""
    stem, suffix = single.split(".")
    paths = [folder / f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    weight_map = {}
    for keys, path in zip((sorted(tensors)[::2], sorted(tensors)[1::2]), paths, strict=True):
        save({key: tensors[key] for key in keys}, path)
        weight_map |= dict.fromkeys(keys, path.name)
    if index:
        (folder / f"{single}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return paths


def embedding_of(folder: Path) -> Tensor:
    return dict(open_checkpoint(folder).tensors())["tok_embeddings.weight"]


def other(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an older model."""
    return {key: tensor + 1 for key, tensor in tensors.items()}


@pytest.mark.parametrize("index", [True, False], ids=["index", "no-index"])
@pytest.mark.parametrize("single", [SAFETENSORS, BIN])
def test_shards_are_one_model_with_an_index_and_without(single: str, index: bool, folder, tensors) -> None:
    shard(tensors, folder, single, index=index)
    assert torch.equal(embedding_of(folder), tensors[EMBEDDING])


def test_torch_s_own_file_is_read_and_nothing_in_it_is_executed(folder, tensors) -> None:
    save(tensors, folder / BIN)
    assert torch.equal(embedding_of(folder), tensors[EMBEDDING])
    torch.save({"model": tensors, "step": 3}, folder / BIN)
    with pytest.raises(ValueError, match=r"pytorch_model.bin: must hold tensors by name .*'model', 'step'"):
        open_checkpoint(folder).parameters()
    torch.save({EMBEDDING: pytest.fail}, folder / BIN)
    with pytest.raises(ValueError, match=r"pytorch_model.bin: must hold tensors only"):
        open_checkpoint(folder).parameters()


@pytest.mark.parametrize("single", [SAFETENSORS, BIN])
def test_shards_of_an_older_model_beside_a_single_file_are_refused(single: str, folder, tensors) -> None:
    shard(other(tensors), folder, single)
    save(tensors, folder / single)
    with pytest.raises(ValueError, match=rf"base: holds {single} and .*-00001-of-00002.*keep one of them"):
        open_checkpoint(folder)


@pytest.mark.parametrize("there", [SAFETENSORS, BIN])
def test_an_index_whose_files_are_gone_is_told_of_and_what_is_there_is_read(there: str, folder, tensors) -> None:
    for path in shard(other(tensors), folder, SAFETENSORS):
        path.unlink()
    with pytest.raises(ValueError, match=r"weights file model-00001-of-00002.safetensors is missing$"):
        open_checkpoint(folder)
    save(tensors, folder / there)
    with pytest.warns(UserWarning, match=f"model-00001-of-00002.safetensors of an index is missing, and {there} is"):
        assert torch.equal(embedding_of(folder), tensors[EMBEDDING])


def test_a_missing_shard_is_refused_though_another_file_is_there(folder, tensors) -> None:
    shard(tensors, folder, SAFETENSORS)[1].unlink()
    save(tensors, folder / BIN)
    with pytest.raises(
        ValueError, match=r"weights file model-00002-of-00002.safetensors is missing, .*00001.* is there"
    ):
        open_checkpoint(folder)


def test_an_index_that_names_the_single_file_alone_changes_nothing(folder, tensors) -> None:
    save(tensors, folder / SAFETENSORS)
    weight_map = dict.fromkeys(tensors, SAFETENSORS)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(embedding_of(folder), tensors[EMBEDDING])


def test_safetensors_are_read_where_torch_s_file_is_there_too(folder, tensors) -> None:
    save(tensors, folder / SAFETENSORS)
    save(other(tensors), folder / BIN)
    assert torch.equal(embedding_of(folder), tensors[EMBEDDING])


def test_shards_of_two_counts_without_an_index_are_refused(folder, tensors) -> None:
    shard(tensors, folder, SAFETENSORS, index=False)
    save(tensors, folder / "model-00001-of-00003.safetensors")
    with pytest.raises(ValueError, match=r"holds shards of 00002 and of 00003, and no model.safetensors.index.json"):
        open_checkpoint(folder)


def test_a_tensor_that_two_shards_hold_is_refused(folder, tensors) -> None:
    paths = shard(tensors, folder, BIN)
    save(tensors, paths[1])
    with pytest.raises(ValueError, match=r"pytorch_model-00002-of-00002.bin: .* stands in another file as well"):
        open_checkpoint(folder).parameters()


def test_params_json_left_beside_config_json_is_told_of_and_the_names_decide(folder, tensors, golden: Path) -> None:
    save(tensors, folder / SAFETENSORS)
    shutil.copy(golden / "meta-tiny-mha/params.json", folder)
    with pytest.warns(
        UserWarning, match=r"holds both params.json and config.json: .* Hugging Face's names, params.json"
    ):
        assert torch.equal(embedding_of(folder), tensors[EMBEDDING])


def test_config_json_left_beside_meta_s_files_is_told_of(golden: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(golden / "meta-tiny-mha", tmp_path / "base"))
    shutil.copy(golden / "hf-tiny-qlora/base/config.json", base)
    with pytest.warns(UserWarning, match=r"holds both params.json and config.json: .* Meta's names, config.json"):
        assert open_checkpoint(base).config.rope_layout == "interleaved"


def test_two_whole_models_in_one_folder_are_refused(folder, tensors, golden: Path) -> None:
    save(tensors, folder / SAFETENSORS)
    for name in ("params.json", "consolidated.00.pth"):
        shutil.copy(golden / "meta-tiny-mha" / name, folder)
    with pytest.raises(ValueError, match=r"holds consolidated.00.pth and model.safetensors, which may be two models"):
        open_checkpoint(folder)
    (folder / "params.json").unlink()
    with pytest.warns(UserWarning, match=r"consolidated.00.pth is not read: config.json is of model.safetensors"):
        open_checkpoint(folder)
    (folder / SAFETENSORS).unlink()
    with pytest.raises(ValueError, match=r"holds consolidated.00.pth, which is Meta's, and no params.json"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["meta_model_0.pt", "model.ckpt", "consolidated.safetensors", "flax_model.msgpack"])
def test_weights_under_a_name_that_is_not_read_are_named(name: str, folder) -> None:
    (folder / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"weights file model.safetensors is missing; holds {name}"):
        open_checkpoint(folder)


def make(*names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("{}")

    return write


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (make("adapter_config.json", "adapter_model.safetensors"), "is a hat .adapter_config.json., and its base is"),
        (make("model-Q4_K_M.gguf"), "name the file itself: .*model-Q4_K_M.gguf"),
        (make("original/params.json"), "is .*original meant?"),
        (make("checkpoint-500/config.json"), "is .*checkpoint-500 meant?"),
        (make("model.safetensors"), "Hugging Face.$"),
    ],
    ids=["hat", "gguf", "meta-inside", "checkpoints", "no-config"],
)
def test_a_folder_that_is_no_base_says_what_it_is(write: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=f"holds neither params.json .Meta. nor config.json .*{said}"):
        open_checkpoint(tmp_path)


STAND_INS = {
    "empty": (b"", "it is empty"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:9f\nsize 1\n",
        "pointer of Git LFS .*git lfs pull",
    ),
    "html": (b"<!doctype html><html>Sign in</html>", "page of a website"),
    "cut": (b"PK\x03\x04" + bytes(100), "truncated"),
}


@pytest.mark.parametrize("content", STAND_INS)
@pytest.mark.parametrize("name", [SAFETENSORS, BIN, "consolidated.00.pth"])
def test_what_stands_in_for_a_file_of_weights_is_called_what_it_is(
    name: str, content: str, golden: Path, folder
) -> None:
    if name.endswith(".pth"):
        (folder / "config.json").unlink()
        shutil.copy(golden / "meta-tiny-mha/params.json", folder)
    data, said = STAND_INS[content]
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"base/{re.escape(name)}: not a whole .* file: .*{said}") as error:
        open_checkpoint(folder).parameters()
    assert "\n" not in str(error.value)


FOREIGN_KEYS = {
    "_orig_mod.model.norm.weight": "torch.compile .*take the prefix _orig_mod. off",
    "module.model.norm.weight": "DistributedDataParallel",
    "base_model.model.model.norm.weight": "with a hat of PEFT's on it",
    "model.layers.0.self_attn.q_proj.base_layer.weight": "with a hat of PEFT's on it",
    "model.layers.0.self_attn.q_proj.qweight": "GPTQ's or AWQ's",
    "model.layers.0.self_attn.q_proj.bias": "a Llama's linears have none",
    "model.layers.0.self_attn.q_proj.weight_scale_inv": "FP8",
    "transformer.h.0.attn.c_attn.weight": "projections are fused",
    "vision_tower.patch.weight": "sees or hears",
    "layers.0.sa_norm.scale": "torchtune's",
    "layers.0.attention.wq.weight": "Meta's, whose config is params.json",
    "layers.0.self_attn.o_proj.weight": "without its output head",
    "something.else": "no tensor of a Llama$",
}


@pytest.mark.parametrize("key", FOREIGN_KEYS)
def test_a_key_that_no_llama_has_is_named_with_whose_it_is(key: str, folder) -> None:
    save({key: torch.ones(2)}, folder / SAFETENSORS)
    with pytest.raises(ValueError, match=re.escape(key) + f".*{FOREIGN_KEYS[key]}"):
        open_checkpoint(folder).parameters()


def test_hugging_face_s_names_under_meta_s_config_are_called_so(golden: Path, tensors, tmp_path: Path) -> None:
    shutil.copy(golden / "meta-tiny-mha/params.json", tmp_path)
    save(tensors, tmp_path / SAFETENSORS)
    with pytest.raises(
        ValueError, match=r"lm_head.weight is no parameter .*Hugging Face's, whose config is config.json"
    ):
        open_checkpoint(tmp_path).parameters()


def test_what_is_missing_is_told_with_what_is_there(folder, tensors) -> None:
    save({"model.norm.weight": tensors["model.norm.weight"]}, folder / SAFETENSORS)
    with pytest.raises(
        ValueError, match=r"tok_embeddings.weight is missing \(20 in all\); first key: model.norm.weight$"
    ):
        open_checkpoint(folder).parameters()
    save({}, folder / SAFETENSORS)
    with pytest.raises(ValueError, match=r"the files hold no tensor$"):
        open_checkpoint(folder).parameters()


def test_an_ordinary_folder_is_opened_without_a_word(golden: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("meta-tiny-mha", "meta-tiny-gqa-mp2", "hf-tiny-qlora/base", "hf-tiny-qlora/base-bnb-nf4-dq"):
            open_checkpoint(golden / name).parameters()
