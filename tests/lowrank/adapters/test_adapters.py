"""Named hats on one base: PEFT's files, PEFT's logits, and a base that is never touched."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from error_bounds import assert_as_exact_as_plain
from safetensors.torch import load_file, save_file
from torch import Tensor

from lowrank.adapters import (
    adapter_names,
    adapter_parameters,
    add_adapter,
    drop_adapter,
    files,
    lora_layers,
    resolve_targets,
    use_adapter,
    using_adapter,
)
from lowrank.adapters.files import load_adapter, save_adapter
from lowrank.checkpoints.load import load
from lowrank.kernels.llama_ops.cuda import CUDA_OPS
from lowrank.layers.lora import LoRALinear
from lowrank.layers.recompute import use_ops
from lowrank.model.llama import Llama
from lowrank.model.loss import next_token_loss
from lowrank.model.param_names import LINEARS, to_hf
from lowrank.train.optim import AdamW

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Q_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def base_hash(model: Llama) -> str:
    """SHA-256 over every byte of the base: parameters and buffers that are no adapter's."""
    digest = hashlib.sha256()
    for name, tensor in sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items()):
        if ".lora_" not in name:
            digest.update(name.replace(".base.", ".").encode())
            digest.update(tensor.detach().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fill(model: Llama, name: str, seed: int = 0) -> None:
    """Gives an adapter matrices that do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(model, name).values():
            parameter.normal_(std=0.1, generator=generator)


@pytest.fixture
def hatted(make_llama: Callable[..., Llama]) -> Llama:
    """A small Llama with the hats "a" (every linear, rank 2) and "b" (attention, rank 3); none is in use."""
    model = make_llama()
    add_adapter(model, "a", rank=2)
    add_adapter(model, "b", rank=3, targets="attention")
    fill(model, "a", 1)
    fill(model, "b", 2)
    return model


@pytest.fixture
def hat(hf_folder: Path, tmp_path: Path) -> Path:
    """PEFT's folder of a trained adapter, to spoil."""
    return Path(shutil.copytree(hf_folder / "adapter-end", tmp_path / "hat"))


@pytest.fixture
def base(hf_folder: Path) -> Llama:
    return load(hf_folder / "base", "fp32")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


# Logits of PEFT


@pytest.mark.parametrize(("folder", "key"), [("base", "logits_fp32"), ("base-bnb-nf4-dq", "logits_nf4_dq")])
def test_logits_of_peft(
    folder: str,
    key: str,
    hf_folder: Path,
    hf_reference: dict[str, Tensor],
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    model = load(hf_folder / folder, "fp32" if folder == "base" else None)
    load_adapter(model, "end", hf_folder / "adapter-end")
    assert_logits_equal(model(hf_reference["tokens"]), hf_reference[key])
    use_adapter(model, "end")
    assert_logits_equal(model(hf_reference["tokens"]), hf_reference[f"{key}_adapter_end"])
    use_adapter(model, None)
    assert_logits_equal(model(hf_reference["tokens"]), hf_reference[key])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"targets": ["q_proj", "w2"]}], ids=str)
def test_peft_reads_what_we_save_and_gives_our_logits(
    options: dict[str, Any], base: Llama, hf_folder: Path, hf_reference: dict[str, Tensor], tmp_path: Path
) -> None:
    """By the rule of products, PEFT being the plain one: rsLoRA's scaling of 6 makes the rounding of both larger."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    add_adapter(base, "ours", rank=4, alpha=12, **options)
    fill(base, "ours")
    use_adapter(base, "ours")
    save_adapter(base, "ours", tmp_path / "ours")
    theirs = AutoModelForCausalLM.from_pretrained(hf_folder / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(theirs, tmp_path / "ours").eval()
    tokens = hf_reference["tokens"][:, :16]
    ours, plain = base(tokens).detach(), theirs(tokens).logits.detach()
    use_ops(base, CUDA_OPS)  # which are float64 throughout if x is
    assert_as_exact_as_plain(ours, plain, base.double()(tokens).detach().double())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
def test_we_read_what_peft_saves_and_give_its_logits(
    base: Llama,
    hf_folder: Path,
    hf_reference: dict[str, Tensor],
    tmp_path: Path,
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(
        r=4, lora_alpha=12, target_modules=["k_proj", "up_proj"], init_lora_weights=False, use_rslora=True
    )
    theirs = AutoModelForCausalLM.from_pretrained(hf_folder / "base", dtype=torch.float32)
    theirs = get_peft_model(theirs, config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    load_adapter(base, "theirs", tmp_path / "theirs")
    use_adapter(base, "theirs")
    tokens = hf_reference["tokens"][:, :16]
    assert_logits_equal(base(tokens), theirs(tokens).logits.detach())


# The base


@pytest.mark.parametrize("weights", ["fp32", "int8", "nf4-dq"])
def test_the_base_keeps_every_byte(weights: str, hf_folder: Path, hf_reference: dict[str, Tensor]) -> None:
    model, tokens = load(hf_folder / "base", weights), hf_reference["tokens"]
    before, logits = base_hash(model), model(tokens)
    add_adapter(model, "new")
    use_adapter(model, "new")
    optimizer = AdamW(adapter_parameters(model, "new"))
    loss, count = next_token_loss(model.train(), tokens, tokens)
    (loss / count).backward()
    optimizer.step(1e-2)
    assert base_hash(model) == before
    assert not torch.equal(model(tokens), logits)
    drop_adapter(model, "new")
    assert base_hash(model) == before
    assert torch.equal(model.eval()(tokens), logits)
    assert not any(isinstance(module, LoRALinear) for module in model.modules())


def test_only_the_matrices_of_a_trainable_hat_are_trained(
    make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model = make_llama().requires_grad_()
    add_adapter(model, "a", rank=2)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {
        f"layers.{layer}.{linear}.{matrix}.a"
        for layer in (0, 1)
        for linear in LINEARS
        for matrix in ("lora_A", "lora_B")
    }
    use_adapter(model, "a")
    model(random_tokens(1, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in adapter_parameters(model, "a").values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_layer_has_learned_after_a_step(
    checkpointing: bool, make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]
) -> None:
    model, tokens = make_llama(), random_tokens(2, 8)
    model.gradient_checkpointing = checkpointing
    add_adapter(model, "a", rank=2)
    use_adapter(model, "a")
    next_token_loss(model.train(), tokens, tokens)[0].backward()
    AdamW(adapter_parameters(model, "a")).step(1e-3)
    assert all(layer.lora_B["a"].any() for layer in lora_layers(model).values())


def test_a_new_hat_changes_nothing_yet(make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor]) -> None:
    model, tokens = make_llama(), random_tokens(2, 8)
    before = model(tokens)
    add_adapter(model, "a")
    use_adapter(model, "a")
    assert torch.equal(model(tokens), before)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_decides_a_new_hat(seed: int, make_llama: Callable[..., Llama]) -> None:
    hats = []
    for _ in range(2):
        model = make_llama()
        torch.rand(3)  # the global generator has no say
        add_adapter(model, "a", seed=seed)
        hats.append(adapter_parameters(model, "a"))
    assert all(torch.equal(hats[0][name], hats[1][name]) for name in hats[0])
    firsts = [layer.lora_A["a"][0, :32] for layer in lora_layers(model).values()]
    assert not torch.equal(firsts[0], firsts[1])


# Use


def test_a_name_a_mix_and_rows(hatted: Llama, random_tokens: Callable[..., Tensor]) -> None:
    tokens, logits = random_tokens(3, 6), {}
    for name in (None, "a", "b"):
        use_adapter(hatted, name)
        logits[name] = hatted(tokens)
    assert not torch.allclose(logits["a"], logits["b"], atol=1e-3)
    for mix, same in (({"a": 1.0}, "a"), ({"a": 0.0, "b": 1.0}, "b"), ({"a": 0.0}, None), ({}, None)):
        use_adapter(hatted, mix)
        torch.testing.assert_close(hatted(tokens), logits[same])
    rows = ["b", None, "a"]
    use_adapter(hatted, rows)
    torch.testing.assert_close(hatted(tokens), torch.stack([logits[row][i] for i, row in enumerate(rows)]))


def test_a_row_may_wear_a_mix(hatted: Llama, random_tokens: Callable[..., Tensor]) -> None:
    tokens, rows = random_tokens(4, 6), [{"a": 0.7, "b": -0.3}, "b", None, {"a": 0.7, "b": -0.3}]
    alone = []
    for row, use in enumerate(rows):
        use_adapter(hatted, use)
        alone.append(hatted(tokens[row : row + 1]))
    use_adapter(hatted, rows)
    torch.testing.assert_close(hatted(tokens), torch.cat(alone))


# One thread's choice


def test_a_choice_for_a_block_ends_with_it(hatted: Llama, random_tokens: Callable[..., Tensor]) -> None:
    tokens, logits = random_tokens(2, 6), {}
    for name in (None, "a", "b"):
        use_adapter(hatted, name)
        logits[name] = hatted(tokens)
    use_adapter(hatted, "a")
    with using_adapter(hatted, "b"):
        assert torch.equal(hatted(tokens), logits["b"])
        with using_adapter(hatted, None):
            assert torch.equal(hatted(tokens), logits[None])
        with pytest.raises(ValueError, match="unknown adapter 'c'"), using_adapter(hatted, "c"):
            pass
        assert torch.equal(hatted(tokens), logits["b"])
    assert torch.equal(hatted(tokens), logits["a"])


@pytest.mark.slow
def test_threads_with_different_hats_do_not_meet(hatted: Llama, random_tokens: Callable[..., Tensor]) -> None:
    tokens, uses, wrong = random_tokens(3, 6), (None, "a", "b", {"a": 0.5, "b": 0.5}, ["b", "a", None]), []
    alone = []
    for use in uses:
        use_adapter(hatted, use)
        alone.append(hatted(tokens))
    use_adapter(hatted, "a")
    start = threading.Barrier(len(uses))

    def work(place: int) -> None:
        with using_adapter(hatted, uses[place]):
            start.wait()
            for _ in range(20):
                if not torch.equal(hatted(tokens), alone[place]):
                    wrong.append(uses[place])

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(uses))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert torch.equal(hatted(tokens), alone[1])


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same-thread", "other-thread"])
def test_what_is_run_again_backward_wears_what_it_wore(
    elsewhere: bool, hatted: Llama, random_tokens: Callable[..., Tensor]
) -> None:
    tokens, gradients = random_tokens(2, 6), []
    for checkpointing in (False, True):
        hatted.gradient_checkpointing = checkpointing
        hatted.zero_grad()
        with using_adapter(hatted, ["a", "b"]):
            loss = hatted(tokens).square().sum()
        if elsewhere:
            thread = threading.Thread(target=loss.backward)
            thread.start()
            thread.join()
        else:
            loss.backward()
        gradients.append(
            [parameter.grad.clone() for name in "ab" for parameter in adapter_parameters(hatted, name).values()]
        )
    hatted.gradient_checkpointing = False
    assert all(gradient.any() for gradient in gradients[0][:2])
    for kept, run_again in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, run_again)


@pytest.mark.slow
def test_a_compiled_model_does_not_keep_the_choice_of_a_block(
    hatted: Llama, random_tokens: Callable[..., Tensor]
) -> None:
    compiled, tokens = torch.compile(hatted, backend="eager", fullgraph=True), random_tokens(1, 6)
    use_adapter(hatted, "a")
    torch.testing.assert_close(compiled(tokens), hatted(tokens))
    with using_adapter(hatted, "b"), pytest.raises(Exception, match="does not see using_adapter"):
        compiled(tokens)
    use_adapter(hatted, "b")
    torch.testing.assert_close(compiled(tokens), hatted(tokens))


def test_a_mix_weighs_the_deltas(hatted: Llama, random_tokens: Callable[..., Tensor]) -> None:
    use_adapter(hatted, {"a": 0.7, "b": -0.3})
    mixed = hatted(random_tokens(2, 6))
    layers = lora_layers(hatted)
    with torch.no_grad():
        for layer in layers.values():
            for name, weight in (("a", 0.7), ("b", -0.3)):
                if name in layer.configs:
                    layer.base.weight += weight * layer.delta(name)
    use_adapter(hatted, None)
    torch.testing.assert_close(mixed, hatted(random_tokens(2, 6)))


@pytest.mark.parametrize("rows", [["a"], ["a", "b"], ["a", "b", None, "a"]], ids=len)
def test_names_for_another_number_of_rows_are_refused(
    rows: list[str | None], hatted: Llama, random_tokens: Callable[..., Tensor]
) -> None:
    use_adapter(hatted, rows)
    with pytest.raises(ValueError, match=r"rows"):
        hatted(random_tokens(3, 6))


@pytest.mark.parametrize("use", ["c", {"a": 1.0, "c": 0.5}, ["a", "c"]], ids=str)
def test_an_unknown_name_is_refused_and_what_is_in_use_stays(use: Any, hatted: Llama) -> None:
    use_adapter(hatted, "a")
    with pytest.raises(ValueError, match=r"unknown adapter 'c': this model holds \['a', 'b'\]"):
        use_adapter(hatted, use)
    assert lora_layers(hatted)["layers.0.attention.wq"].active == (("a", 1.0),)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_mix_that_is_not_finite_is_refused(weight: float, hatted: Llama) -> None:
    with pytest.raises(ValueError, match="'a'"):
        use_adapter(hatted, {"a": weight})


def test_a_dropped_hat_is_gone_and_the_other_stays(hatted: Llama, random_tokens: Callable[..., Tensor]) -> None:
    use_adapter(hatted, "b")
    alone = hatted(random_tokens(2, 6))
    use_adapter(hatted, {"a": 1.0, "b": 1.0})
    drop_adapter(hatted, "a")
    assert adapter_names(hatted) == ["b"]
    assert not [name for name, _ in hatted.named_parameters() if name.endswith(".a")]
    torch.testing.assert_close(hatted(random_tokens(2, 6)), alone)
    assert {path.split(".")[2] for path in lora_layers(hatted)} == {"attention"}


@pytest.mark.parametrize(
    "call",
    [drop_adapter, adapter_parameters, lambda model, name: save_adapter(model, name, "nowhere")],
    ids=["drop", "parameters", "save"],
)
def test_a_name_that_is_not_held_is_refused(
    call: Callable[[Llama, str], object], hatted: Llama, make_llama: Callable[..., Llama]
) -> None:
    with pytest.raises(ValueError, match="unknown adapter 'c'"):
        call(hatted, "c")
    with pytest.raises(ValueError, match="holds none"):
        call(make_llama(), "a")


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("a", {}, "already there"),
        ("", {}, "name must be"),
        ("a.b", {}, "name must be"),
        ("../a", {}, "name must be"),
        ("c", {"rank": 0}, "rank must be at least 1"),
        ("c", {"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ("c", {"dropout": -0.1}, r"dropout must be in \[0, 1\)"),
        ("c", {"alpha": float("nan")}, "alpha"),
        ("c", {"targets": ["wq", "lm_head"]}, "unknown linear 'lm_head'"),
        ("c", {"targets": []}, "at least one"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any], reason: str, hatted: Llama) -> None:
    with pytest.raises(ValueError, match=reason):
        add_adapter(hatted, name, **options)
    assert adapter_names(hatted) == ["a", "b"]


@pytest.mark.parametrize("name", ["keys", "values", "items", "pop", "update", "type", "clear"])
def test_a_word_that_torch_keeps_for_itself_is_refused_as_a_name(name: str, make_llama: Callable[..., Llama]) -> None:
    model = make_llama()
    with pytest.raises(ValueError, match=f"an adapter cannot be called '{name}'"):
        add_adapter(model, name)
    assert adapter_names(model) == []


def test_a_second_hat_does_not_freeze_the_first(make_llama: Callable[..., Llama]) -> None:
    model = make_llama().requires_grad_(True)
    for name in ("a", "b"):
        add_adapter(model, name)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert {name.rpartition(".")[2] for name in trained} == {"a", "b"}


@pytest.mark.parametrize(
    ("targets", "resolved"),
    [
        ("all", LINEARS),
        ("attention", LINEARS[:4]),
        ("wq", LINEARS[:1]),
        (["v_proj", "attention.wq", "self_attn.q_proj"], (LINEARS[0], LINEARS[2])),
        (["down_proj", "w1"], ("feed_forward.w1", "feed_forward.w2")),
    ],
    ids=str,
)
def test_targets_take_either_name(targets: Any, resolved: tuple[str, ...]) -> None:
    assert resolve_targets(targets) == resolved


# Files


def test_our_files_are_those_of_peft(base: Llama, hat: Path, tmp_path: Path) -> None:
    load_adapter(base, "end", hat)
    save_adapter(base, "end", tmp_path / "ours")
    ours, theirs = load_file(tmp_path / "ours" / WEIGHTS), load_file(hat / WEIGHTS)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    config, peft = (json.loads((folder / CONFIG).read_text()) for folder in (tmp_path / "ours", hat))
    assert sorted(config.pop("target_modules")) == sorted(peft["target_modules"])
    assert config.pop("base_model_name_or_path").endswith("hf-tiny-qlora/base")  # where the base was loaded from
    assert config == {key: peft[key] for key in config}
    assert {path.name for path in (tmp_path / "ours").iterdir()} == {WEIGHTS, CONFIG, "lowrank.json"}


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_saved_and_loaded_again_is_the_same_hat(
    dtype: torch.dtype,
    layout: str,
    make_llama: Callable[..., Llama],
    random_tokens: Callable[..., Tensor],
    tmp_path: Path,
) -> None:
    model = make_llama(rope_layout=layout)
    add_adapter(model, "a", rank=3, alpha=5, targets=["wq", "wk", "w2"], dropout=0.1, rslora=True)
    fill(model, "a")
    save_adapter(model, "a", tmp_path / "a", dtype=dtype, notes={"data": "none"})
    assert load_adapter(model, "again", tmp_path / "a")["data"] == "none"
    saved, again = adapter_parameters(model, "a"), adapter_parameters(model, "again")
    assert all(torch.equal(again[name], saved[name].to(dtype).float()) for name in saved)
    layer = lora_layers(model)["layers.0.attention.wq"]
    assert layer.configs["again"] == layer.configs["a"]
    assert not any(parameter.requires_grad for parameter in again.values())


@pytest.mark.parametrize("kv_heads", [4, 2, 1], ids=["mha", "gqa", "mqa"])
def test_a_hat_means_the_same_on_a_base_of_the_other_layout(
    kv_heads: int, make_llama: Callable[..., Llama], random_tokens: Callable[..., Tensor], tmp_path: Path
) -> None:
    meta, hf = make_llama(n_kv_heads=kv_heads), make_llama(n_kv_heads=kv_heads, rope_layout="half")
    for block in hf.layers:
        for linear, heads in ((block.attention.wq, 4), (block.attention.wk, kv_heads)):
            rows = linear.weight.view(heads, -1, 2, 32).transpose(1, 2).reshape(linear.weight.shape)
            linear.weight = torch.nn.Parameter(rows, requires_grad=False)
    add_adapter(meta, "a", rank=3)
    fill(meta, "a")
    save_adapter(meta, "a", tmp_path / "a")
    load_adapter(hf, "a", tmp_path / "a")
    for model in (meta, hf):
        use_adapter(model, "a")
    torch.testing.assert_close(hf(random_tokens(2, 9)), meta(random_tokens(2, 9)))
    save_adapter(hf, "a", tmp_path / "back")
    once, twice = (load_file(tmp_path / folder / WEIGHTS) for folder in ("a", "back"))
    assert all(torch.equal(once[key], twice[key]) for key in once)


def test_the_file_holds_the_rows_of_q_in_halves(make_llama: Callable[..., Llama], tmp_path: Path) -> None:
    model = make_llama()
    add_adapter(model, "a", rank=1, targets="all")
    for layer in lora_layers(model).values():
        layer.lora_B["a"].data[:, 0] = torch.arange(float(layer.out_features))
    save_adapter(model, "a", tmp_path / "a")
    tensors = load_file(tmp_path / "a" / WEIGHTS)
    for linear in LINEARS:
        rows = tensors[f"base_model.model.{to_hf(f'layers.1.{linear}')}.lora_B.weight"][:8, 0].tolist()
        halves = linear in ("attention.wq", "attention.wk")
        assert rows == ([0, 2, 4, 6, 1, 3, 5, 7] if halves else [0, 1, 2, 3, 4, 5, 6, 7])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_saved(bad: float, hatted: Llama, tmp_path: Path) -> None:
    lora_layers(hatted)["layers.1.attention.wo"].lora_B["a"].data[0, 0] = bad
    with pytest.raises(ValueError, match=r"adapter 'a': layers.1.attention.wo.lora_B is not finite"):
        save_adapter(hatted, "a", tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_hat_that_does_not_read_back_is_not_saved(
    hatted: Llama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(path: Path) -> dict[str, Tensor]:
        tensors = load_file(path)
        tensors[next(iter(tensors))][0, 0] += 1
        return tensors

    monkeypatch.setattr(files, "load_file", spoiled)
    with pytest.raises(OSError, match=f"{WEIGHTS} does not read back as it was written"):
        save_adapter(hatted, "a", tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_saved_hat_can_be_read_by_others(hatted: Llama, tmp_path: Path) -> None:
    save_adapter(hatted, "a", tmp_path / "a")
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "a").iterdir()} == {0o644}


def test_what_a_narrow_dtype_cannot_hold_is_not_saved(hatted: Llama, tmp_path: Path) -> None:
    lora_layers(hatted)["layers.1.attention.wo"].lora_B["a"].data[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"layers.1.attention.wo.lora_B is not finite"):
        save_adapter(hatted, "a", tmp_path / "a", dtype=torch.float16)


def test_a_trainable_hat_is_trained_and_a_frozen_one_is_not(base: Llama, hat: Path) -> None:
    load_adapter(base, "frozen", hat)
    load_adapter(base, "trained", hat, trainable=True)
    for name, trainable in (("frozen", False), ("trained", True)):
        parameters = adapter_parameters(base, name)
        assert len(parameters) == 28
        assert {parameter.requires_grad for parameter in parameters.values()} == {trainable}


@pytest.mark.parametrize("filename", [WEIGHTS, CONFIG])
def test_a_folder_without_a_file_of_peft_is_refused(filename: str, base: Llama, hat: Path) -> None:
    (hat / filename).unlink()
    with pytest.raises(ValueError, match=f"{filename} is missing"):
        load_adapter(base, "a", hat)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("bias", "all"),
        ("use_dora", True),
        ("use_qalora", True),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("layer_replication", [[0, 2]]),
        ("target_parameters", ["experts"]),
        ("trainable_token_indices", [5]),
        ("alora_invocation_tokens", [5]),
        ("use_bdlora", {"nblocks": 2}),
        ("arrow_config", {"top_k": 2}),
        ("kasa_config", {"beta": 1e-4}),
        ("monteclora_config", {"samples": 2}),
        ("an_option_of_next_year", True),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_16"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", "lora_ga"),
        ("target_modules", ["q_proj", "lm_head"]),
        ("target_modules", []),
        ("target_modules", [3]),
        ("r", 0),
        ("r", "8"),
        ("lora_alpha", None),
        ("lora_alpha", "16"),
        ("lora_dropout", 1.5),
        ("lora_dropout", "0.1"),
    ],
    ids=lambda value: str(value),
)
def test_an_option_of_peft_that_is_not_done_here_is_refused(key: str, value: Any, base: Llama, hat: Path) -> None:
    edit_config(hat, **{key: value})
    with pytest.raises(ValueError, match=rf"{CONFIG}.*\b{key}\b"):
        load_adapter(base, "hat", hat)
    assert adapter_names(base) == []


@pytest.mark.parametrize("value", [True, False, "gaussian", "eva", "orthogonal"])
def test_a_start_that_leaves_the_base_alone_is_let_pass(value: Any, base: Llama, hat: Path) -> None:
    edit_config(hat, init_lora_weights=value)
    load_adapter(base, "hat", hat)


@pytest.mark.parametrize("key", ["r", "lora_alpha", "target_modules"])
def test_a_key_that_peft_always_writes_must_be_there(key: str, base: Llama, hat: Path) -> None:
    config = json.loads((hat / CONFIG).read_text())
    del config[key]
    (hat / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"{CONFIG}: key '{key}' is missing"):
        load_adapter(base, "hat", hat)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.pop(Q_A), rf"{Q_A} is missing"),
        (
            lambda tensors: tensors.clear(),
            r"and 27 more\) is missing: of 28 matrices that the config asks of this base none is there",
        ),
        (
            lambda tensors: tensors.update({Q_A: torch.zeros(8, 64)}),
            r"q_proj.*shape \[8, 128\] on this base, got \[8, 64\]",
        ),
        (lambda tensors: tensors.update({Q_A: tensors[Q_A].T.contiguous()}), r"shape \[8, 128\] .*got \[128, 8\]"),
        (lambda tensors: tensors.update({Q_A.replace(".0.", ".2."): torch.zeros(8, 128)}), r"layers.2.*fits no linear"),
        (
            lambda tensors: tensors.update({"base_model.model.lm_head.weight": torch.zeros(1)}),
            r"lm_head.*fits no linear",
        ),
        (lambda tensors: tensors[Q_A].fill_(torch.nan), r"q_proj.lora_A.*finite"),
    ],
    ids=["missing", "none", "narrow", "transposed", "another-layer", "head", "nan"],
)
def test_tensors_that_do_not_fit_are_named(change, reason: str, base: Llama, hat: Path) -> None:
    edit_tensors(hat, change)
    with pytest.raises(ValueError, match=reason):
        load_adapter(base, "hat", hat)
    assert lora_layers(base) == {}


@pytest.mark.parametrize("kept", [0, 100, 100_000])
def test_a_truncated_file_is_told(kept: int, base: Llama, hat: Path) -> None:
    (hat / WEIGHTS).write_bytes((hat / WEIGHTS).read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"{WEIGHTS}: not a whole safetensors file"):
        load_adapter(base, "hat", hat)


def test_a_hat_of_another_base_is_refused_with_both_fingerprints(golden: Path, base: Llama, tmp_path: Path) -> None:
    other = load(golden / "meta-tiny-mha", "fp32")
    add_adapter(other, "a", targets="attention")
    save_adapter(other, "a", tmp_path / "a")
    ours, theirs = base.source["fingerprint"][:16], other.source["fingerprint"][:16]
    with pytest.raises(ValueError, match=f"{theirs}.*{ours}.*force=True"):
        load_adapter(base, "a", tmp_path / "a")
    assert lora_layers(base) == {}
    recorded = load_adapter(base, "a", tmp_path / "a", force=True)
    assert recorded["base"]["fingerprint"] == other.source["fingerprint"]


def test_a_hat_trained_on_4_bits_is_worn_by_the_full_precision_base(
    hf_folder: Path, base: Llama, tmp_path: Path
) -> None:
    quantized = load(hf_folder / "base-bnb-nf4-dq")
    add_adapter(quantized, "a")
    save_adapter(quantized, "a", tmp_path / "a")
    assert load_adapter(base, "a", tmp_path / "a")["base"]["weights"] == "nf4-dq"
