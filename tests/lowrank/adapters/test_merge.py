"""Merging: the logits of the hat as it was worn, in either layout, and an honest account of what is lost."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from error_bounds import assert_logits_are_equal
from safetensors.torch import load_file, save_file
from torch import Tensor

from lowrank.adapters import adapter_parameters, add_adapter, merge, use_adapter
from lowrank.adapters.files import load_adapter, read_adapter, save_adapter
from lowrank.adapters.merge import merge_folder
from lowrank.adapters.merge_plan import INTO
from lowrank.checkpoints.config_files import meta_params
from lowrank.checkpoints.load import load
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.checkpoints.stored_weight import to_stored
from lowrank.kernels import ops
from lowrank.model.checkpoint import open_checkpoint
from lowrank.model.config_json import from_meta
from lowrank.model.llama import Llama
from lowrank.model.param_names import to_hf

BASES = ("meta-tiny-mha", "meta-tiny-gqa-mp2", "hf-tiny-qlora/base")


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest, golden: Path) -> Path:
    return golden / request.param


@pytest.fixture
def hf(golden: Path) -> Path:
    return golden / "hf-tiny-qlora/base"


@pytest.fixture
def make_hat(tmp_path: Path):
    """A hat for the base in a folder, with matrices that do something."""

    def make(base: Path, name: str = "hat", weights: str | None = "fp32", **options: Any) -> Path:
        model = load(base, weights)
        add_adapter(model, name, **{"rank": 4, "alpha": 8, **options})
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in adapter_parameters(model, name).values():
                parameter.normal_(std=0.05, generator=generator)
        save_adapter(model, name, tmp_path / name)
        return tmp_path / name

    return make


def active_adapters(base: Path, hat: Path, weights: str | None, tokens: Tensor) -> Tensor:
    model = load(base, weights)
    load_adapter(model, "hat", hat)
    use_adapter(model, "hat")
    logits: Tensor = model(tokens)
    return logits


pytestmark = pytest.mark.filterwarnings("ignore:.*params.json has no place for:UserWarning")

# The logits


@pytest.mark.slow
@pytest.mark.parametrize("format", ["hf", "meta"])
@pytest.mark.parametrize("into", ["fp32", "dequantized"])
def test_a_merged_folder_has_the_logits_of_the_hat_as_it_was_worn(
    into: str,
    format: Any,
    base: Path,
    make_hat,
    hf_reference: dict[str, Tensor],
    tmp_path: Path,
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    hat, tokens = make_hat(base), hf_reference["tokens"]
    merged = merge_folder(base, hat, tmp_path / "out", into, format=format, dtype="fp32")
    model = load(merged.folder, merged.weights)
    assert model.config.rope_layout == ("half" if format == "hf" else "interleaved")
    assert_logits_equal(model(tokens), active_adapters(base, hat, merged.unmerged, tokens))
    assert (model(tokens) - load(base, merged.unmerged)(tokens)).abs().max() > 1e-2
    assert merged.overall.cosine == pytest.approx(1, abs=1e-6)
    assert merged.overall.ratio == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_a_folder_that_goes_to_the_other_format_and_back_is_the_same(base: Path, make_hat, tmp_path: Path) -> None:
    """A hat of zeros, there and back: every tensor in its place, bit for bit."""
    model = load(base, "fp32")
    add_adapter(model, "zero", targets="attention")
    save_adapter(model, "zero", tmp_path / "zero")
    there, back = ("meta", "hf") if model.config.rope_layout == "half" else ("hf", "meta")
    merge_folder(base, tmp_path / "zero", tmp_path / "there", "fp32", format=there)
    merge_folder(tmp_path / "there", tmp_path / "zero", tmp_path / "back", "fp32", format=back, force=True)
    own, again = (dict(open_checkpoint(folder).tensors()) for folder in (base, tmp_path / "back"))
    assert own.keys() == again.keys()
    assert all(torch.equal(own[name].float(), again[name]) for name in own)
    positions = open_checkpoint(tmp_path / "back").config.max_seq_len  # for which params.json has no place
    assert replace(open_checkpoint(base).config, max_seq_len=positions) == open_checkpoint(tmp_path / "back").config


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
def test_transformers_reads_the_folder_and_peft_merges_to_the_same(
    base: Path,
    make_hat,
    hf,
    hf_reference: dict[str, Tensor],
    tmp_path: Path,
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    hat, tokens = make_hat(base), hf_reference["tokens"][:, :16]
    folder = merge_folder(base, hat, tmp_path / "out", "fp32").folder
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert theirs.dtype == torch.float32
    assert_logits_equal(load(folder, "fp32")(tokens), theirs(tokens).logits.detach())
    if base == hf:
        plain = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32)
        peft = PeftModel.from_pretrained(plain, hat).merge_and_unload().state_dict()
        ours = theirs.state_dict()
        assert all((ours[key] - peft[key]).abs().max() <= 2e-7 for key in peft)  # a rounding of W + delta W


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
@pytest.mark.parametrize("into", ["nf4-dq", "fp4"])
def test_transformers_with_bitsandbytes_reads_a_folder_that_was_quantized_again(
    into: str, make_hat, hf, golden: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    # A base of Meta's in float32, since transformers keeps what is not quantized in the type it is stored in.
    hat = golden / "hf-tiny-qlora/adapter-start"
    base = merge_folder(hf, hat, tmp_path / "wide", "fp32", format="meta").folder
    folder = merge_folder(base, make_hat(base), tmp_path / "out", into).folder
    theirs = AutoModelForCausalLM.from_pretrained(folder).train()  # in training, bitsandbytes does not round W
    tokens = torch.arange(40).view(2, 20)
    assert_logits_are_equal(load(folder)(tokens), theirs(tokens).logits.detach())


# What is stored


@pytest.mark.slow
@pytest.mark.parametrize("into", [name for name in INTO if name != "dequantized"])
def test_a_linear_is_base_and_delta_in_the_form_asked_for(into: str, hf, golden: Path, tmp_path: Path) -> None:
    hat = golden / "hf-tiny-qlora/adapter-end"
    folder = merge_folder(hf, hat, tmp_path / "out", into).folder
    path, pairs = "layers.1.attention.wk", read_adapter(hat).pairs
    config, lora_A, lora_B = pairs[path][:3]
    whole = load(hf, "fp32").get_submodule(path).weight + config.alpha / config.rank * (lora_B @ lora_A)
    found = load(folder, into).get_submodule(path)
    if into in ("fp32", "bf16", "fp16"):
        assert torch.equal(found.weight, whole.to(found.weight.dtype))
    else:
        expected = ops.quantize(whole, into)
        assert all(torch.equal(tensor, expected.tensors()[name]) for name, tensor in found.quantized.tensors().items())


@pytest.mark.slow
@pytest.mark.parametrize("through", ["nf4", "fp4-dq", "int8"])
def test_the_dequantized_base_is_that_of_the_layout_in_which_it_was_worn(
    through: str, make_hat, golden: Path, tmp_path: Path
) -> None:
    base = golden / "meta-tiny-gqa-mp2"
    hat = make_hat(base, targets=["wq"])
    merged = merge_folder(base, hat, tmp_path / "out", "dequantized", dtype="fp32", through=through, format="meta")
    found, expected = load(merged.folder, "fp32"), load(base, f"dequant:{through}")
    assert torch.equal(found.layers[0].attention.wk.weight, expected.layers[0].attention.wk.weight)
    pair = read_adapter(hat).reorder_rope_rows("layers.0.attention.wq", expected.config)
    assert torch.equal(found.layers[0].attention.wq.weight, expected.layers[0].attention.wq.weight + pair.delta())


def test_linears_without_the_hat_and_everything_else_stay_bit_for_bit(base: Path, make_hat, tmp_path: Path) -> None:
    hat = make_hat(base, targets=["wv"])
    format = "meta" if "meta" in str(base) else "hf"
    folder = merge_folder(base, hat, tmp_path / "out", "bf16", format=format).folder
    own, merged = (dict(open_checkpoint(path).tensors()) for path in (base, folder))
    assert own.keys() == merged.keys()
    for name in own:
        assert torch.equal(own[name], merged[name]) == (not name.endswith("wv.weight")), name


@pytest.mark.slow
@pytest.mark.parametrize("into", ["bf16", "fp16", "dequantized", "nf4-dq", "int8"])
def test_survival_is_the_cosine_and_the_norm_of_what_the_folders_differ_by(
    into: str, hf, golden: Path, tmp_path: Path
) -> None:
    hat = golden / "hf-tiny-qlora/adapter-end"
    merged = merge_folder(hf, hat, tmp_path / "out", into)
    with_hat, without = load(merged.folder, merged.weights), load(hf, merged.unmerged)
    assert len(merged.survival) == 14
    for part in merged.survival:
        W, bare = (model.get_submodule(part.path) for model in (with_hat, without))
        if into == "dequantized":
            bare = bare.weight.to(torch.float16)
        W, bare = (w.dequantize() if hasattr(w, "dequantize") and not isinstance(w, Tensor) else w for w in (W, bare))
        W, bare = (getattr(w, "weight", w).double() for w in (W, bare))
        delta = read_adapter(hat).pairs[part.path].delta().double()
        kept = W - bare
        cosine = torch.sum(kept * delta) / kept.norm() / delta.norm()
        assert part.cosine == pytest.approx(cosine.item(), abs=1e-5)
        assert part.ratio == pytest.approx((kept.norm() / delta.norm()).item(), abs=1e-5)


def test_a_small_hat_is_lost_in_four_bits_and_the_account_says_so(hf, make_hat, tmp_path: Path) -> None:
    hat = make_hat(hf, alpha=0.05)
    whole, quarter = (merge_folder(hf, hat, tmp_path / into, into).overall for into in ("fp32", "nf4"))
    assert whole.cosine > 0.999
    assert quarter.cosine < 0.5


# The folder


def test_the_folder_says_what_was_merged_into_what(hf, make_hat, tmp_path: Path) -> None:
    hat = make_hat(hf)
    merged = merge_folder(hf, hat, tmp_path / "out", "dequantized", through="nf4")
    record = json.loads((merged.folder / "lowrank.json").read_text())
    fingerprint = load(hf).source["fingerprint"]
    assert record["merged"]["into"] == "dequantized"
    assert record["merged"]["base_weights"] == "dequant:nf4"
    assert record["merged"]["base_fingerprint"] == fingerprint
    assert record["merged"]["hat"]["base"]["fingerprint"] == fingerprint
    assert record["survival"]["all"] == [merged.overall.cosine, merged.overall.ratio]
    assert len(record["tensors_sha256"]) == len(open_checkpoint(hf).config.parameter_shapes())


@pytest.mark.slow
@pytest.mark.parametrize("into", ["nf4-dq", "fp4", "int8", "fp32"])
def test_every_tensor_begins_at_a_multiple_of_its_item_size(
    into: str, embedded: Path, make_hat, tmp_path: Path
) -> None:
    folder = merge_folder(embedded, make_hat(embedded, targets=["wq"]), tmp_path / "out", into).folder
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    widths = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1, "I8": 1}
    del header["__metadata__"]
    assert length % 8 == 0
    assert len(header) >= 30
    assert not [key for key, entry in header.items() if entry["data_offsets"][0] % widths[entry["dtype"]]]


def test_a_merged_base_is_another_base(hf, make_hat, tmp_path: Path) -> None:
    hat = make_hat(hf)
    one, other = (merge_folder(hf, hat, tmp_path / into, into).folder for into in ("fp16", "nf4"))
    fingerprints = [load(folder).source["fingerprint"] for folder in (hf, one, other)]
    assert fingerprints[0] != fingerprints[1] == fingerprints[2]
    with pytest.raises(
        ValueError, match=f"made for the base {fingerprints[0][:16]}, this base is {fingerprints[1][:16]}"
    ):
        load_adapter(load(one), "hat", hat)
    with pytest.raises(ValueError, match="made for the base"):
        merge_folder(one, hat, tmp_path / "twice", "fp16")
    merge_folder(one, hat, tmp_path / "twice", "fp16", force=True)


def test_the_tokenizer_comes_along(embedded: Path, make_hat, tmp_path: Path) -> None:
    folder = merge_folder(embedded, make_hat(embedded, targets=["wq"]), tmp_path / "out", "fp16").folder
    assert (folder / "tokenizer.model").read_bytes() == (embedded / "tokenizer.model").read_bytes()


def test_a_tied_head_stays_tied_in_one_format_and_is_written_out_in_the_other(hf, make_hat, tmp_path: Path) -> None:
    base = Path(shutil.copytree(hf, tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, base / "model.safetensors")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    hat = make_hat(base)
    for format, tied in (("hf", True), ("meta", False)):
        model = load(merge_folder(base, hat, tmp_path / format, "fp32", format=format).folder, "fp32")
        assert model.config.tie_embeddings is tied
        assert (model.output.weight is model.tok_embeddings.weight) is tied
        assert torch.equal(model.output.weight, model.tok_embeddings.weight)


@pytest.mark.parametrize(
    ("dim", "hidden"), [(4096, 11008), (5120, 13824), (8192, 28672), (128, 384), (128, 352), (64, 100), (4096, 4097)]
)
def test_params_json_gives_back_every_width(dim: int, hidden: int, make_llama: Callable[..., Llama]) -> None:
    config = replace(make_llama().config, dim=dim, hidden_dim=hidden, rope_theta=5e5, max_seq_len=8192)
    assert from_meta(meta_params(config)) == config
    assert from_meta(meta_params(replace(config, rope_theta=10_000.0))).rope_theta == 10_000.0


@pytest.fixture(scope="module")
def mixed(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bitsandbytes' 4-bit folder with one block's feed-forward left in bfloat16, as `llm_int8_skip_modules` does."""
    base = golden / "hf-tiny-qlora"
    folder = Path(shutil.copytree(base / "base-bnb-nf4-dq", tmp_path_factory.mktemp("mixed") / "base"))
    dense, tensors = load_file(base / "base/model.safetensors"), load_file(folder / "model.safetensors")
    tensors = {key: tensor for key, tensor in tensors.items() if "layers.1.mlp" not in key}
    tensors |= {key: tensor for key, tensor in dense.items() if "layers.1.mlp" in key}
    save_file(tensors, folder / "model.safetensors")
    return folder


LEFT_DENSE = [f"layers.1.feed_forward.{name}" for name in ("w1", "w2", "w3")]


@pytest.fixture
def hat_of_zeros(mixed: Path, tmp_path: Path) -> Path:
    model = load(mixed)
    add_adapter(model, "zero", targets="all")
    save_adapter(model, "zero", tmp_path / "zero")
    return tmp_path / "zero"


@pytest.mark.parametrize("weights", [None, "nf4-dq", "dequant:nf4-dq"])
def test_linears_that_a_quantized_folder_left_dense_stay_as_they_are(
    weights, mixed, hf, hf_reference: dict[str, Tensor]
) -> None:
    model, dense = load(mixed, weights), load(hf, "bf16")
    for path in LEFT_DENSE:
        assert torch.equal(model.get_submodule(path).weight, dense.get_submodule(path).weight)
    assert_logits_are_equal(model(hf_reference["tokens"]), load(mixed)(hf_reference["tokens"]))


@pytest.mark.parametrize("into", ["dequantized", "nf4-dq", "nf4"])
def test_a_hat_of_zeros_changes_no_byte_of_what_was_left_dense(into, mixed, hat_of_zeros, tmp_path: Path) -> None:
    merged = merge_folder(mixed, hat_of_zeros, tmp_path / "out", into, dtype="bf16")
    own, out = (dict(open_checkpoint(folder).tensors()) for folder in (mixed, merged.folder))
    for path in LEFT_DENSE:
        assert torch.equal(own[f"{path}.weight"].view(torch.int16), out[f"{path}.weight"].view(torch.int16))


def test_a_hat_of_zeros_leaves_the_logits_of_the_base_as_it_is_stored(
    mixed, hat_of_zeros, hf_reference: dict[str, Tensor], tmp_path: Path
) -> None:
    merged = merge_folder(mixed, hat_of_zeros, tmp_path / "out", "dequantized", dtype="fp32")
    tokens = hf_reference["tokens"]
    assert_logits_are_equal(load(merged.folder, "fp32")(tokens), load(mixed)(tokens))
    assert_logits_are_equal(load(merged.folder, "fp32")(tokens), active_adapters(mixed, hat_of_zeros, None, tokens))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
def test_transformers_leaves_dense_what_was_left_dense(mixed, hat_of_zeros, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = merge_folder(mixed, hat_of_zeros, tmp_path / "out", "nf4-dq").folder
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    kinds = {name: type(module).__name__ for name, module in theirs.named_modules() if name.endswith("_proj")}
    assert {name for name, kind in kinds.items() if kind == "Linear"} == set(map(to_hf, LEFT_DENSE))
    assert torch.equal(theirs.model.layers[1].mlp.up_proj.weight, load(mixed).layers[1].feed_forward.w3.weight)


def test_a_hat_on_a_linear_that_was_left_dense_is_added_in_its_type(mixed, make_hat, tmp_path: Path) -> None:
    hat = make_hat(mixed, weights=None)
    out = merge_folder(mixed, hat, tmp_path / "out", "nf4-dq").folder
    path = LEFT_DENSE[2]
    whole = load(mixed).get_submodule(path).weight.float() + read_adapter(hat).pairs[path].delta()
    assert torch.equal(load(out).get_submodule(path).weight, whole.bfloat16())


def test_a_folder_of_two_quantized_formats_is_not_merged_into(mixed, hat_of_zeros, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mixed, tmp_path / "two"))
    tensors, key = load_file(folder / "model.safetensors"), "model.layers.1.mlp.up_proj"
    stored = to_stored(ops.quantize(tensors.pop(f"{key}.weight"), "nf4"))
    save_file(tensors | {key + suffix: part for suffix, part in stored.items()}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"in one 4- or 8-bit format, holds nf4-dq .*wq.weight. and nf4 .*w3.weight"):
        merge_folder(folder, hat_of_zeros, tmp_path / "out", "dequantized")


def test_what_cannot_be_measured_is_not_published(hf, make_hat, tmp_path: Path) -> None:
    measured = []

    def measure(merged: merge.Merged) -> None:
        measured.append(load(merged.folder, merged.weights).config)
        raise ValueError("none of the documents fits")

    with pytest.raises(ValueError, match="none of the documents fits"):
        merge_folder(hf, make_hat(hf), tmp_path / "out" / "merged", "bf16", measure=measure)
    assert len(measured) == 1
    assert not list((tmp_path / "out").iterdir())


def test_what_is_told_of_a_base_is_told_once_and_of_no_hidden_path(golden: Path, make_hat, tmp_path: Path) -> None:
    base = Path(shutil.copytree(golden / "meta-tiny-mha", tmp_path / "base"))
    params = json.loads((base / "params.json").read_text())
    (base / "params.json").write_text(json.dumps(params | {"norm_eps": 1e-6}))
    with pytest.warns(UserWarning, match="norm_eps is 1e-06") as told:
        merge_folder(base, make_hat(base), tmp_path / "out", "bf16", format="meta")
    assert not [warning for warning in told if "/.out" in str(warning.message)]


# Refusals


@pytest.mark.parametrize("into", ["fp32", "bf16", "fp16"])
def test_full_precision_is_not_made_up(into: str, golden: Path, tmp_path: Path) -> None:
    base, hat = golden / "hf-tiny-qlora/base-bnb-nf4-dq", golden / "hf-tiny-qlora/adapter-end"
    with pytest.raises(ValueError, match=f"stored as nf4-dq, .* into must be 'dequantized'.*, got '{into}'"):
        merge_folder(base, hat, tmp_path / "out", into)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("into", ["dequantized", "nf4-dq", "int8"])
def test_a_quantized_base_is_merged_into_as_what_it_dequantizes_to(into: str, golden: Path, tmp_path: Path) -> None:
    base, hat = golden / "hf-tiny-qlora/base-bnb-nf4-dq", golden / "hf-tiny-qlora/adapter-end"
    folder = merge_folder(base, hat, tmp_path / "out", into, dtype="fp32").folder
    path = "layers.0.feed_forward.w2"
    whole = load(base, "dequant:nf4-dq").get_submodule(path).weight + read_adapter(hat).pairs[path].delta()
    found = load(folder, None if into != "dequantized" else "fp32").get_submodule(path)
    if into == "dequantized":
        assert torch.equal(found.weight, whole)
    else:
        assert torch.equal(found.dequantize(), ops.dequantize(ops.quantize(whole, into)))


def test_a_folder_of_meta_that_was_quantized_keeps_its_layout(
    make_hat, golden: Path, tmp_path: Path, hf_reference: dict[str, Tensor]
) -> None:
    base = quantize_folder(golden / "meta-tiny-mha", tmp_path / "base", "int8")
    hat = make_hat(golden / "meta-tiny-mha")
    merged = merge_folder(base, hat, tmp_path / "out", "dequantized", dtype="fp32", format="hf")
    tokens = hf_reference["tokens"]
    assert_logits_are_equal(load(merged.folder, "fp32")(tokens), active_adapters(base, hat, "dequant:int8", tokens))


@pytest.mark.parametrize("change", [{"into": "fp64"}, {"into": "dequantized", "through": "fp16"}, {"dtype": "nf4"}])
def test_a_form_that_is_none_is_refused(change: dict[str, str], hf, golden: Path, tmp_path: Path) -> None:
    options = {"into": "fp16", **change}
    with pytest.raises(ValueError, match=r"must be one of|of a 4- or 8-bit format"):
        merge_folder(hf, golden / "hf-tiny-qlora/adapter-end", tmp_path / "out", **options)


def test_what_a_narrow_type_cannot_hold_is_named(hf, make_hat, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.wq\.weight: must be finite in fp16, holds up to"):
        merge_folder(hf, make_hat(hf, targets=["wq"], alpha=1e8), tmp_path / "out", "fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["hat"]


@pytest.mark.parametrize("format", ["hf", "meta"])
def test_a_folder_that_does_not_read_back_never_gets_its_name(
    format: Any, hf, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = merge.write_config

    def and_spoil(folder: Path, *rest: Any) -> None:
        honest(folder, *rest)
        file = next(path for path in folder.iterdir() if path.suffix in (".pth", ".safetensors"))
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    monkeypatch.setattr(merge, "write_config", and_spoil)
    with pytest.raises(OSError, match=r"does not read back as it was written"):
        merge_folder(hf, golden / "hf-tiny-qlora/adapter-end", tmp_path / "out", "fp32", format=format)
    assert not list(tmp_path.iterdir())


def test_what_params_json_cannot_say_is_told(hf, golden: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="params.json has no place for 256 positions: Meta's code assumes 4096"):
        merge_folder(hf, golden / "hf-tiny-qlora/adapter-end", tmp_path / "out", "bf16", format="meta")
