"""Parity with transformers, peft and bitsandbytes themselves, on small models made here; and what it would notice."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peers import peft, transformers
from safetensors.torch import save_file

from lowrank.atomic_io import write_json
from lowrank.checkpoints.load import load
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.cli import main
from lowrank.eval.parity import live as room
from lowrank.eval.parity.live import Figure, live_parity
from lowrank.layers.lora import AdapterConfig
from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.config import ModelConfig
from lowrank.model.llama import Llama
from lowrank.model.param_names import to_hf

BASES = ("meta-mha", "meta-gqa", "hf-mha", "hf-gqa")
FORWARD = [f"{who}: {what}" for who in ("base", "hat") for what in ("hidden states", "logits", "greedy tokens")]
EVERY_MODEL = [*FORWARD, "hat: loss", "hat: gradients"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random bases in bfloat16, each with norms of its own: Meta's and Hugging Face's layout, 4 heads, 4 or 2 for k."""
    folders = {name: tmp_path_factory.mktemp(name) for name in BASES}
    for name, folder in folders.items():
        kv_heads = 2 if name.endswith("gqa") else 4
        shape = ModelConfig(dim=128, n_layers=2, n_heads=4, n_kv_heads=kv_heads, hidden_dim=352, vocab_size=128)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = Llama(shape).bfloat16().state_dict()
            for key in state:
                if "norm" in key:
                    state[key].uniform_(0.5, 1.5)
        if name.startswith("meta"):
            params = {"dim": 128, "n_layers": 2, "n_heads": 4, "n_kv_heads": kv_heads, "multiple_of": 32}
            write_json(folder / "params.json", {**params, "norm_eps": 1e-5, "vocab_size": -1})
            torch.save(state, folder / "consolidated.00.pth")
        else:
            config = transformers.LlamaConfig(
                hidden_size=128,
                intermediate_size=352,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=kv_heads,
                vocab_size=128,
                rms_norm_eps=1e-5,
                architectures=["LlamaForCausalLM"],
            )
            config.save_pretrained(folder)
            parts = {f"{to_hf(key)}": tensor for key, tensor in state.items()}
            save_file(parts, folder / "model.safetensors", metadata={"format": "pt"})
    return folders


def failed(figures: list[Figure]) -> list[str]:
    return [figure.what for figure in figures if not figure.has_passed]


# What agrees


@pytest.mark.long
@pytest.mark.parametrize("weights", ["fp32", "bf16", "nf4", "nf4-dq", "fp4", "fp4-dq", "int8"])
@pytest.mark.parametrize("base", BASES)
def test_every_figure_keeps_its_bound(bases: dict[str, Path], base: str, weights: str) -> None:
    figures = live_parity(bases[base], weights)
    assert failed(figures) == []
    codes = ["weights: codes", "weights: statistics"] if weights[0] in "nfi" and weights != "fp32" else []
    nested = ["weights: nested"] if weights.endswith("-dq") else []
    assert [figure.what for figure in figures] == [*codes, *nested, *EVERY_MODEL]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["nf4", "nf4-dq", "fp4", "int8"])
@pytest.mark.parametrize("base", ["hf-gqa", "meta-gqa"])
def test_a_folder_that_we_quantized(bases: dict[str, Path], base: str, weights: str, tmp_path: Path) -> None:
    """transformers with bitsandbytes reads ours, to the same codes; a Meta folder's only bitsandbytes can read."""
    figures = live_parity(quantize_folder(bases[base], tmp_path / "q", weights))
    assert failed(figures) == []
    assert all(figure.error == 0 for figure in figures if figure.what.startswith("weights"))
    assert any(figure.what == "weights: codes" for figure in figures) == base.startswith("hf")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_a_folder_that_bitsandbytes_quantized(bases: dict[str, Path], kind: str, nested: bool, tmp_path: Path) -> None:
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=nested
    )
    theirs = transformers.LlamaForCausalLM.from_pretrained(
        bases["hf-gqa"], quantization_config=config, dtype=torch.bfloat16, device_map="cpu"
    )
    theirs.save_pretrained(tmp_path / "q")
    figures = live_parity(tmp_path / "q")
    assert failed(figures) == []
    assert [figure.error for figure in figures if figure.what.startswith("weights")] == [0.0] * (2 + nested)


@pytest.mark.slow
def test_weights_that_went_through_a_format(bases: dict[str, Path]) -> None:
    assert failed(live_parity(bases["meta-gqa"], "dequant:nf4-dq")) == []


@pytest.mark.slow
def test_the_embedded_base_whose_logits_are_large(embedded: Path) -> None:
    """The bound of its logits is larger in proportion."""
    figures = {figure.what: figure for figure in live_parity(embedded, "fp32")}
    assert failed(list(figures.values())) == []
    assert 2e-5 < figures["base: logits"].bound < 2e-4


HATS = {
    "llamas-default": {"target_modules": ["q_proj", "v_proj"]},
    "rslora": {"target_modules": "all-linear", "use_rslora": True, "r": 4, "lora_alpha": 3},
    "dropout": {"target_modules": ["k_proj", "down_proj"], "lora_dropout": 0.5},
    "patterns": {
        "target_modules": ["q_proj", "k_proj", "up_proj"],
        "rank_pattern": {"k_proj": 3, "layers.1.self_attn.q_proj": 2},
        "alpha_pattern": {"up_proj": 5, "layers.1.mlp.up_proj": 7},
    },
    "patterns-rslora": {
        "target_modules": ["v_proj", "gate_proj"],
        "rank_pattern": {"v_proj": 3},
        "alpha_pattern": {"gate_proj": 5},
        "use_rslora": True,
    },
    "some-layers": {"target_modules": ["o_proj", "down_proj"], "layers_to_transform": [1]},
}


@pytest.fixture
def peft_hat(bases: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A hat that PEFT makes and writes, B away from zero."""

    def make(**options: Any) -> Path:
        base = transformers.LlamaForCausalLM.from_pretrained(bases["hf-gqa"], dtype=torch.float32)
        model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **options))
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.05, generator=generator)
        model.save_pretrained(tmp_path / "hat")
        return tmp_path / "hat"

    return make


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # between peft and transformers
@pytest.mark.parametrize("options", HATS.values(), ids=HATS)
@pytest.mark.parametrize(("base", "weights"), [("hf-gqa", "nf4-dq"), ("meta-gqa", "fp32")])
def test_hats_that_peft_made(bases, peft_hat, base: str, weights: str, options: dict[str, Any]) -> None:
    assert failed(live_parity(bases[base], weights, peft_hat(**options))) == []


# What would be noticed


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Llama], object]], None]:
    """Lets something happen to our model right after it was loaded."""

    def after(damage: Callable[[Llama], object]) -> None:
        def load_and_damage(*arguments: Any) -> Llama:
            model = load(*arguments)
            damage(model)
            return model

        monkeypatch.setattr(room, "load", load_and_damage)

    return after


@pytest.mark.slow
def test_the_first_layer_that_departs_is_named(bases: dict[str, Path], damaged) -> None:
    damaged(lambda model: setattr(model.layers[1].ffn_norm, "eps", 1e-2))
    figures = {figure.what: figure for figure in live_parity(bases["meta-gqa"], "fp32")}
    assert figures["base: hidden states"].where == "layer 1 is the first to depart"
    assert not figures["base: logits"].has_passed and not figures["hat: gradients"].has_passed


@pytest.mark.slow
def test_rows_in_the_wrong_layout_depart_at_once(bases: dict[str, Path], damaged) -> None:
    def swap(model: Llama) -> None:
        for layer in model.layers:
            layer.attention.rope_layout = "interleaved"

    damaged(swap)
    figures = {figure.what: figure for figure in live_parity(bases["hf-gqa"], "fp32")}
    assert figures["base: hidden states"].where == "layer 0 is the first to depart"


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "buffer"), [("nf4", "codes"), ("int8", "codes"), ("nf4-dq", "absmax")])
def test_one_wrong_code_is_noticed(bases: dict[str, Path], damaged, weights: str, buffer: str) -> None:
    def change(model: Llama) -> None:
        layer = model.layers[1].attention.wo
        assert isinstance(layer, QuantLinear)
        layer.get_buffer(buffer).flatten()[5] ^= 0x24

    damaged(change)
    figures = live_parity(bases["meta-gqa"], weights)
    assert failed(figures) == ["weights: codes" if buffer == "codes" else "weights: nested"]
    assert next(figure.where for figure in figures if not figure.has_passed) == "layers.1.attention.wo"


@pytest.mark.slow
def test_a_scale_that_is_off_in_the_last_bit_is_noticed(bases: dict[str, Path], damaged) -> None:
    def change(model: Llama) -> None:
        scale = model.layers[0].feed_forward.w1.get_buffer("scale")
        scale[3] = torch.nextafter(scale[3], torch.tensor(2.0))

    damaged(change)
    assert failed(live_parity(bases["hf-mha"], "int8")) == ["weights: statistics"]


@pytest.mark.slow
def test_a_hat_with_another_scaling_is_noticed(bases: dict[str, Path], monkeypatch) -> None:
    def scaled(config: AdapterConfig) -> None:
        object.__setattr__(config, "scaling", 1.001 * config.alpha / config.rank)

    monkeypatch.setattr(AdapterConfig, "__post_init__", scaled)
    found = failed(live_parity(bases["hf-mha"], "fp32"))
    assert {"hat: hidden states", "hat: logits", "hat: gradients"} <= set(found)
    assert not [what for what in found if what.startswith("base")]


@pytest.mark.slow
def test_an_error_that_is_no_number_does_not_pass(bases: dict[str, Path], damaged, capsys) -> None:
    damaged(lambda model: model.norm.weight.fill_(float("nan")))
    figures = {figure.what: figure for figure in live_parity(bases["hf-mha"], "fp32")}
    assert figures["base: hidden states"].where == "norm is the first to depart"
    assert "norm is the first layer that gives NaN" in figures["base: greedy tokens"].where
    both = {f"{who}: {what}" for who in ("base", "hat") for what in ("hidden states", "logits", "greedy tokens")}
    assert set(failed(list(figures.values()))) == both | {"hat: loss", "hat: gradients"}
    capsys.readouterr()
    assert main(["parity", "--live", str(bases["hf-mha"]), "--weights", "fp32", "--json"]) == 1
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert {figure["error"] for figure in told["figures"] if not figure["passed"]} == {None}


# The command


@pytest.mark.long
def test_the_command_prints_a_table_and_json(bases: dict[str, Path], capsys, damaged) -> None:
    assert main(["parity", "--live", str(bases["hf-gqa"]), "--weights", "nf4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["compared", "error", "bound"] and len(lines) == 2 + 2 + len(EVERY_MODEL)
    damaged(lambda model: setattr(model.layers[0].ffn_norm, "eps", 1e-2))
    assert main(["parity", "--live", str(bases["hf-gqa"]), "--weights", "nf4", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["passed"]
    assert {"what", "error", "bound", "where", "passed"} == told["figures"][0].keys()
    assert main(["parity", "--live", str(bases["hf-gqa"]), "--weights", "nf4"]) == 1
    assert "OVER  layer 0 is the first to depart" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformers", "peft", "bitsandbytes"])
def test_a_package_that_is_missing_is_named_with_how_to_get_it(bases, monkeypatch, capsys, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["parity", "--live", str(bases["hf-mha"])]) == 2
    assert capsys.readouterr().err == f"lowrank: --live: {name} is missing: pip install {name}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "parity needs REFERENCE.safetensors or --live, one of the two"),
        (["reference.safetensors", "--live"], "parity needs REFERENCE.safetensors or --live, one of the two"),
        (["--live", "--key", "greedy"], "--key goes with a stored reference, not with --live"),
        (["--live", "--tolerance", "1"], "--tolerance goes with a stored reference, not with --live"),
        (["--live", "--dtype", "bf16"], "--live compares in fp32, got --dtype bf16"),
    ],
    ids=" ".join,
)
def test_what_does_not_go_together_is_told(bases, capsys, arguments: list[str], message: str) -> None:
    assert main(["parity", str(bases["hf-mha"]), *arguments]) == 2
    assert capsys.readouterr().err == f"lowrank: {message}\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # bitsandbytes' own
def test_a_difference_in_four_bits_is_told_with_the_rules_that_each_side_breaks(
    bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "live_parity", lambda *_, **__: [Figure("weights: codes", 0.5, 0.0, "layers.0")])
    assert main(["parity", "--live", str(bases["hf-mha"]), "--weights", "nf4"]) == 1
    told = capsys.readouterr().out.splitlines()[-2:]
    assert told[0].startswith("lowrank keeps all 28 rules")
    assert told[1].startswith("bitsandbytes breaks the rule ")
    assert main(["parity", "--live", str(bases["hf-mha"]), "--weights", "fp32", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["conformance"] == {}
