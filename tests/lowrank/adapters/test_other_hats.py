"""Hats as other programs and older versions leave them: pickles, wrapped key names, folders, MLX, DoRA, embeddings."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lowrank.adapters import adapter_names, adapter_rows, add_adapter, drop_adapter, use_adapter
from lowrank.adapters.export import export_peft
from lowrank.adapters.files import load_adapter, save_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.checkpoints.load import load
from lowrank.model.llama import Llama

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture
def base(hf_folder: Path) -> Llama:
    return load(hf_folder / "base", "fp32")


@pytest.fixture
def hat(hf_folder: Path, tmp_path: Path) -> Path:
    """PEFT's folder of a trained adapter, to rewrite."""
    return Path(shutil.copytree(hf_folder / "adapter-end", tmp_path / "hat"))


@pytest.fixture
def expected(hf_reference: dict[str, Tensor]) -> Tensor:
    return hf_reference["logits_fp32_adapter_end"]


def logits(base: Llama, folder: Path, tokens: Tensor, **given: Any) -> Tensor:
    load_adapter(base, "hat", folder, **given)
    use_adapter(base, "hat")
    return base(tokens).detach()


def tensors_of(hat: Path) -> dict[str, Tensor]:
    return load_file(hat / WEIGHTS)


def edit_config(hat: Path, **changes: Any) -> None:
    path = hat / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pickled(hat: Path, values: Any) -> None:
    (hat / WEIGHTS).unlink()
    torch.save(values, hat / "adapter_model.bin")


# Pickles


def test_the_pickle_of_older_peft_is_read(
    base, hat, hf_reference: dict[str, Tensor], expected, assert_logits_equal: Callable[[Tensor, Tensor], None]
) -> None:
    pickled(hat, {key: torch.nn.Parameter(tensor) for key, tensor in tensors_of(hat).items()})
    assert_logits_equal(logits(base, hat, hf_reference["tokens"]), expected)


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"a": Code()}, "no pickle of tensors alone"),
        ([torch.zeros(1)], "must hold tensors by name, holds a list"),
        ({"state": {"a": torch.zeros(1)}}, "must hold tensors by name, holds a dict as 'state'"),
        ({}, "none is there; the file holds no tensor"),
    ],
    ids=["code", "list", "nested", "empty"],
)
def test_a_pickle_of_anything_else_is_told_and_not_run(
    values, reason: str, base, hat, capsys: pytest.CaptureFixture[str]
) -> None:
    pickled(hat, values)
    with pytest.raises(ValueError, match=f"adapter_model.bin: .*{reason}"):
        load_adapter(base, "hat", hat)
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("kept", [0, 100, 50_000])
def test_a_pickle_that_is_cut_short_is_told(kept: int, base, hat) -> None:
    pickled(hat, tensors_of(hat))
    path = hat / "adapter_model.bin"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"adapter_model\.bin: not"):
        load_adapter(base, "hat", hat)


def test_a_pointer_of_git_lfs_is_told(base, hat) -> None:
    (hat / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="a pointer of Git LFS"):
        load_adapter(base, "hat", hat)


# Key names

RENAMED = {
    "bare": lambda key: key.removeprefix("base_model.model."),
    "default": lambda key: key.replace(".weight", ".default.weight"),
    "of another name": lambda key: key.replace(".weight", ".my-hat_2.weight"),
    "double": lambda key: "base_model.model." + key,
    "module": lambda key: "module." + key,
    "orig-mod": lambda key: "_orig_mod." + key,
    "orig-mod-inside": lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."),
    "blocks compiled": lambda key: key.replace("self_attn.", "_orig_mod.self_attn."),
    "sharded": lambda key: key.replace("layers.0.", "layers.0._fsdp_wrapped_module."),
}


@pytest.mark.slow
@pytest.mark.parametrize("rename", RENAMED.values(), ids=RENAMED)
def test_names_of_wrappers_in_keys_are_seen_through(
    rename, base, hat, hf_reference: dict[str, Tensor], expected, assert_logits_equal: Callable[[Tensor, Tensor], None]
) -> None:
    save_file({rename(key): tensor for key, tensor in tensors_of(hat).items()}, hat / WEIGHTS)
    assert_logits_equal(logits(base, hat, hf_reference["tokens"]), expected)


def test_two_hats_in_a_file_are_refused(base, hat) -> None:
    tensors = tensors_of(hat)
    twice = {key.replace(".weight", f".{name}.weight"): t.clone() for name in "ab" for key, t in tensors.items()}
    save_file(twice, hat / WEIGHTS)
    with pytest.raises(ValueError, match=r"lora_A\.a\.weight and .*lora_A\.b\.weight are both .*one hat a file"):
        load_adapter(base, "hat", hat)


def test_a_file_of_something_else_is_told_by_its_first_key(base, hat) -> None:
    save_file({f"visual.{key}": tensor for key, tensor in tensors_of(hat).items()}, hat / WEIGHTS)
    with pytest.raises(ValueError, match=r"none is there; first key: visual\.base_model"):
        load_adapter(base, "hat", hat)


# Folders


def test_hats_in_named_folders_are_listed(base, hat, tmp_path: Path) -> None:
    for name in ("finance", "law"):
        shutil.copytree(hat, tmp_path / "run" / name)
    with pytest.raises(ValueError, match=r"run: adapter_config.json is missing.*in its folders finance, law: name one"):
        load_adapter(base, "hat", tmp_path / "run")
    with pytest.raises(ValueError, match=r"such as .*hat"):
        load_adapter(base, "hat", tmp_path)


def test_the_newest_checkpoint_of_a_trainer_is_suggested_and_read(
    base,
    hat,
    tmp_path: Path,
    hf_reference: dict[str, Tensor],
    expected,
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    for step in (5, 100, 20):
        folder = Path(shutil.copytree(hat, tmp_path / "out" / f"checkpoint-{step}"))
        (folder / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint-100, checkpoint-20, checkpoint-5: name one, such as .*-100$"):
        load_adapter(base, "hat", tmp_path / "out")
    assert_logits_equal(logits(base, tmp_path / "out" / "checkpoint-100", hf_reference["tokens"]), expected)


def test_what_is_named_instead_of_a_hat_is_told(base, hat, hf_folder: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "hat.gguf"
    gguf.write_bytes(b"GGUF" + bytes(20))
    (tmp_path / "ggufs").mkdir()
    shutil.copy(gguf, tmp_path / "ggufs")
    for path, reason in (
        (tmp_path / "nowhere", "no such folder"),
        (gguf, "GGUF version must be 2 or 3, got 0"),
        (tmp_path / "ggufs", "a hat in a GGUF file is named by the file"),
        (hat / WEIGHTS, "a file of a hat: name its folder"),
        (hf_folder / "base", "a whole model, not a hat"),
    ):
        with pytest.raises(ValueError, match=reason):
            load_adapter(base, "hat", path)


# Hats that belong to another base, and hats that do nothing


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "loftq", "corda", "lora_ga"])
def test_a_hat_whose_start_rewrote_the_base_names_the_base_it_belongs_to(start: str, base, hat) -> None:
    edit_config(hat, init_lora_weights=start, base_model_name_or_path="the/base")
    with pytest.raises(ValueError, match=rf"init_lora_weights is '{start}', so the hat belongs to .*'the/base' itself"):
        load_adapter(base, "hat", hat)
    assert adapter_names(base) == []
    load_adapter(base, "hat", hat, force=True)
    assert adapter_names(base) == ["hat"]


def test_a_hat_that_adds_nothing_is_told(base, hat, caplog: pytest.LogCaptureFixture) -> None:
    tensors = {key: t if "lora_A" in key else torch.zeros_like(t) for key, t in tensors_of(hat).items()}
    save_file(tensors, hat / WEIGHTS)
    with caplog.at_level(logging.WARNING, "lowrank"):
        load_adapter(base, "hat", hat)
    assert [record.getMessage() for record in caplog.records] == [
        f"{hat}: adds nothing: lora_B is zero in all of its {len(tensors) // 2} linears"
    ]


def test_fan_in_fan_out_does_not_matter(
    base, hat, hf_reference: dict[str, Tensor], expected, assert_logits_equal: Callable[[Tensor, Tensor], None]
) -> None:
    edit_config(hat, fan_in_fan_out=True)
    assert_logits_equal(logits(base, hat, hf_reference["tokens"]), expected)


def test_the_base_of_a_saved_hat_is_named(base, tmp_path: Path) -> None:
    add_adapter(base, "a", rank=2)
    save_adapter(base, "a", tmp_path / "a", base_name="meta-llama/Llama-2-7b-hf")
    assert json.loads((tmp_path / "a" / CONFIG).read_text())["base_model_name_or_path"] == "meta-llama/Llama-2-7b-hf"


# MLX


def as_mlx(hat: Path, tmp_path: Path, **changes: Any) -> Path:
    """The same hat as mlx_lm.lora writes it."""
    folder, config = tmp_path / "mlx", json.loads((hat / CONFIG).read_text())
    folder.mkdir()
    tensors = {}
    for key, tensor in tensors_of(hat).items():
        name = key.removeprefix("base_model.model.").removesuffix(".weight")
        tensors[name.replace("lora_A", "lora_a").replace("lora_B", "lora_b")] = tensor.T.contiguous()
    save_file(tensors, folder / "adapters.safetensors")
    scale = config["lora_alpha"] / config["r"]
    values = {
        "fine_tune_type": "lora",
        "num_layers": 2,
        "lora_parameters": {"rank": config["r"], "scale": scale, "dropout": 0.0},
        "model": "mlx-community/Llama",
    }
    (folder / CONFIG).write_text(json.dumps(values | changes))
    return folder


def test_a_hat_of_mlx_is_read_and_exported(
    base,
    hat,
    tmp_path: Path,
    hf_folder: Path,
    hf_reference: dict[str, Tensor],
    expected,
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    folder = as_mlx(hat, tmp_path)
    assert_logits_equal(logits(base, folder, hf_reference["tokens"]), expected)
    export_peft(folder, tmp_path / "peft")
    again = load(hf_folder / "base", "fp32")
    assert_logits_equal(logits(again, tmp_path / "peft", hf_reference["tokens"]), expected)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fine_tune_type": "full"}, "fine_tune_type must be 'lora' or 'dora'"),
        ({"lora_parameters": {"rank": 8}}, "lora_parameters.scale must be a number, got None"),
        ({"fine_tune_type": "dora"}, "must have lora_a, lora_b, m, has lora_a, lora_b"),
    ],
    ids=["full", "scale", "dora"],
)
def test_what_mlx_does_not_write_is_refused(changes, reason: str, base, hat, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        load_adapter(base, "hat", as_mlx(hat, tmp_path, **changes))


# DoRA and embeddings, PEFT being the judge


def peft_model(hf_folder: Path, **options: Any):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(hf_folder / "base", dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=12, task_type="CAUSAL_LM", **options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_A" in name or ".lora_B" in name:
                parameter.normal_(std=0.1)
            elif "magnitude" in name:
                parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
            elif "modules_to_save" in name or "trainable_tokens_delta" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


ROWS = {
    "head": {"modules_to_save": ["lm_head"]},
    "embedding-and-head": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "tokens": {"trainable_token_indices": [5, 9]},
    "tokens-of-both": {"trainable_token_indices": {"embed_tokens": [5, 9], "lm_head": [7]}},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
@pytest.mark.parametrize("options", [{"use_dora": True}, *ROWS.values()], ids=["dora", *ROWS])
def test_peft_gives_our_logits_both_ways_and_merged(
    options: dict[str, Any],
    base,
    hf_folder: Path,
    hf_reference: dict[str, Tensor],
    tmp_path: Path,
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tokens = hf_reference["tokens"][:, :16].clone()
    tokens[:, 3], tokens[:, 7] = 5, 9
    theirs = peft_model(hf_folder, target_modules=["q_proj", "k_proj", "down_proj"], **options)
    theirs.save_pretrained(tmp_path / "theirs", save_embedding_layers=False)
    expected, bare = theirs(tokens).logits.detach(), base(tokens).detach()
    assert (expected - bare).abs().max() > 1e-2
    assert_logits_equal(logits(base, tmp_path / "theirs", tokens), expected)
    with torch.inference_mode():
        assert_logits_equal(base(tokens), expected)

    save_adapter(base, "hat", tmp_path / "ours")
    export_peft(tmp_path / "theirs", tmp_path / "exported")
    theirs_file = load_file(tmp_path / "theirs" / WEIGHTS)
    for folder in ("ours", "exported"):
        ours = load_file(tmp_path / folder / WEIGHTS)
        assert ours.keys() == theirs_file.keys() and all(torch.equal(ours[key], theirs_file[key]) for key in ours)
        plain = AutoModelForCausalLM.from_pretrained(hf_folder / "base", dtype=torch.float32)
        again = PeftModel.from_pretrained(plain, tmp_path / folder).eval()
        assert_logits_equal(again(tokens).logits.detach(), expected)

    merge_folder(hf_folder / "base", tmp_path / "theirs", tmp_path / "merged", "fp32")
    assert_logits_equal(load(tmp_path / "merged", "fp32")(tokens).detach(), expected)
    unmerged = theirs.merge_and_unload()(tokens).logits.detach()
    assert_logits_equal(load(tmp_path / "merged", "fp32")(tokens).detach(), unmerged)

    drop_adapter(base, "hat")
    assert adapter_rows(base) == {} and torch.equal(base(tokens), bare)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
@pytest.mark.parametrize("weights", ["fp32", "nf4-dq"])
def test_the_gradients_of_a_dora_are_those_of_peft(
    weights: str, hf_folder: Path, hf_reference: dict[str, Tensor], tmp_path: Path
) -> None:
    """On the base dequantized, where it is quantized: PEFT's float32 product with the same numbers."""
    from lowrank.adapters import adapter_parameters
    from lowrank.layers.dora import frozen_weight
    from lowrank.model.param_names import to_hf

    tokens = hf_reference["tokens"][:, :16]
    theirs = peft_model(hf_folder, target_modules=["q_proj", "down_proj"], use_dora=True)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(hf_folder / "base", weights)
    for path in [path for path, _ in ours.named_modules() if path.endswith(("wq", "w2", "wk", "wv", "wo", "w1", "w3"))]:
        module = theirs.base_model.model.get_submodule(to_hf(path))
        module = getattr(module, "base_layer", module)
        module.weight.data.copy_(frozen_weight(ours.get_submodule(path)))
    load_adapter(ours, "hat", tmp_path / "theirs", trainable=True)
    use_adapter(ours, "hat")
    ours(tokens).square().mean().backward()
    theirs(tokens).logits.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    for path, parameter in adapter_parameters(ours, "hat").items():
        layer, _, matrix = path.rpartition(".")
        expected = gradients[f"base_model.model.{to_hf(layer)}.{matrix}.default.weight"]
        assert parameter.grad is not None
        atol = 1e-4 * expected.abs().max().item()
        torch.testing.assert_close(parameter.grad, expected.view_as(parameter.grad), rtol=1e-4, atol=atol)


def test_embeddings_that_are_the_base_s_own_are_let_pass(
    base, hat, hf_reference: dict[str, Tensor], expected, assert_logits_equal: Callable[[Tensor, Tensor], None]
) -> None:
    rows = {
        "base_model.model.model.embed_tokens.weight": base.tok_embeddings.weight.detach().clone(),
        "base_model.model.lm_head.weight": base.output.weight.detach().clone(),
    }
    save_file(tensors_of(hat) | rows, hat / WEIGHTS)
    assert_logits_equal(logits(base, hat, hf_reference["tokens"]), expected)
    assert adapter_rows(base) == {}


def test_rows_beyond_the_base_s_are_carried(
    base, hat, hf_folder: Path, hf_reference: dict[str, Tensor], tmp_path: Path
) -> None:
    """As of a base that was enlarged by a padding token before it was trained."""
    new = torch.full((1, base.config.dim), 0.5)
    rows = {
        "base_model.model.model.embed_tokens.weight": torch.cat([base.tok_embeddings.weight.detach(), new]),
        "base_model.model.lm_head.weight": torch.cat([base.output.weight.detach(), new]),
    }
    plain = logits(base, hat, hf_reference["tokens"])
    drop_adapter(base, "hat")
    save_file(tensors_of(hat) | rows, hat / WEIGHTS)
    ours = logits(base, hat, hf_reference["tokens"])
    assert ours.shape[-1] == base.config.vocab_size + 1
    torch.testing.assert_close(ours[..., :-1], plain)
    base(torch.tensor([[base.config.vocab_size]]))
    with pytest.raises(ValueError, match=r"has .* rows of .*, the base .*: it is not merged"):
        merge_folder(hf_folder / "base", hat, tmp_path / "merged", "fp32")


def test_a_hat_with_embeddings_is_worn_alone_and_not_trained(base, hat) -> None:
    rows = {"base_model.model.lm_head.weight": torch.zeros_like(base.output.weight)}
    save_file(tensors_of(hat) | rows, hat / WEIGHTS)
    with pytest.raises(ValueError, match="has rows of lm_head of its own: it can be worn, not trained on"):
        load_adapter(base, "hat", hat, trainable=True)
    load_adapter(base, "hat", hat)
    for use in ({"hat": 0.5}, ["hat", None]):
        with pytest.raises(ValueError, match="'hat' has rows of the embedding or head: it is worn alone"):
            use_adapter(base, use)


def test_the_command_line_tells_of_a_hat_that_adds_nothing(
    hat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lowrank.cli import main

    tensors = {key: t if "lora_A" in key else torch.zeros_like(t) for key, t in tensors_of(hat).items()}
    save_file(tensors, hat / WEIGHTS)
    assert main(["export", str(hat), str(tmp_path / "out"), "--format", "peft"]) == 0
    told = f"lowrank: note: {hat}: adds nothing: lora_B is zero in all of its {len(tensors) // 2} linears\n"
    assert capsys.readouterr().err == told
