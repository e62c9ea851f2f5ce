"""PEFT's options, one by one: honoured as PEFT does, or refused by name. PEFT itself is the judge.

docs/adapters.md holds the table that these tests are the rows of.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lowrank.adapters import adapter_names, layer_configs, use_adapter
from lowrank.adapters.files import load_adapter, save_adapter
from lowrank.adapters.peft_config import FIXED, HARMLESS, HONOURED, read_peft_config
from lowrank.checkpoints.load import load
from lowrank.model.config_json import read_json

DOCS = Path(__file__).resolve().parents[3] / "docs" / "adapters.md"

HONOURED_BY_PEFT = {
    "names": {"target_modules": ["q_proj", "down_proj"]},
    "full-names": {"target_modules": ["model.layers.1.self_attn.k_proj", "mlp.up_proj"]},
    "a-name-that-is-nowhere": {"target_modules": ["q_proj", "query_key_value"]},
    "all-linear": {"target_modules": "all-linear"},
    "regex": {"target_modules": r".*layers\.1\..*(q|v|gate)_proj"},
    "exclude-names": {"target_modules": "all-linear", "exclude_modules": ["k_proj", "layers.0.mlp.up_proj"]},
    "exclude-regex": {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*\.0\..*v_proj"},
    "one-layer": {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": 1},
    "layer-0": {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [0], "layers_pattern": "layers"},
    "rank-pattern": {"target_modules": ["q_proj", "k_proj", "up_proj"], "rank_pattern": {"k_proj": 2, "mlp.*": 6}},
    "alpha-pattern": {"target_modules": ["q_proj", "k_proj"], "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 3}},
    "first-match": {"target_modules": ["q_proj"], "rank_pattern": {r"layers.0.*": 2, "q_proj": 5}},
    "caret": {"target_modules": ["q_proj"], "rank_pattern": {"^model.layers.1.self_attn.q_proj": 7}},
    "rslora": {"target_modules": ["q_proj", "o_proj"], "use_rslora": True},
    "rslora-patterns": {
        "target_modules": ["q_proj", "o_proj"],
        "use_rslora": True,
        "rank_pattern": {"o_proj": 9},
        "alpha_pattern": {"o_proj": 5},
    },
    "orthogonal": {"target_modules": ["q_proj"], "init_lora_weights": "orthogonal"},
}


@pytest.fixture
def base(hf_folder: Path):
    return load(hf_folder / "base", "fp32")


def peft_model(hf_folder: Path, options: dict[str, Any]):
    """transformers' Llama with a PEFT adapter whose matrices do something."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(**{"r": 4, "lora_alpha": 12, "task_type": "CAUSAL_LM", **options})
    model = AutoModelForCausalLM.from_pretrained(hf_folder / "base", dtype=torch.float32)
    model = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.1)
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
@pytest.mark.parametrize("options", HONOURED_BY_PEFT.values(), ids=HONOURED_BY_PEFT)
def test_an_option_that_is_honoured_gives_the_logits_of_peft_and_goes_back(
    options: dict[str, Any],
    base,
    hf_folder: Path,
    hf_reference: dict[str, Tensor],
    tmp_path: Path,
    assert_logits_equal: Callable[[Tensor, Tensor], None],
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    theirs, tokens = peft_model(hf_folder, options), hf_reference["tokens"][:, :16]
    theirs.save_pretrained(tmp_path / "theirs")
    load_adapter(base, "hat", tmp_path / "theirs")
    use_adapter(base, "hat")
    expected = theirs(tokens).logits.detach()
    assert (expected - hf_reference["logits_fp32"][:, :16]).abs().max() > 1e-2
    assert_logits_equal(base(tokens), expected)

    save_adapter(base, "hat", tmp_path / "ours")
    ours, again = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("ours", "theirs"))
    assert ours.keys() == again.keys() and all(torch.equal(ours[key], again[key]) for key in ours)
    plain = AutoModelForCausalLM.from_pretrained(hf_folder / "base", dtype=torch.float32)
    assert_logits_equal(PeftModel.from_pretrained(plain, tmp_path / "ours").eval()(tokens).logits.detach(), expected)


def test_ranks_and_alphas_of_a_pattern_survive_save_and_load(base, hf_folder: Path, tmp_path: Path) -> None:
    """Without PEFT: what is written is what is read."""
    (tmp_path / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "r": 4,
                "lora_alpha": 8,
                "target_modules": ["q_proj", "o_proj"],
                "rank_pattern": {"o_proj": 2},
                "alpha_pattern": {"layers.1.self_attn.q_proj": 3},
            }
        )
    )
    configs = read_peft_config(tmp_path / "adapter_config.json").layer_configs(2)
    assert {path: (config.rank, config.alpha, config.scaling) for path, config in configs.items()} == {
        "layers.0.attention.wq": (4, 8, 2.0),
        "layers.0.attention.wo": (2, 8, 4.0),
        "layers.1.attention.wq": (4, 3, 0.75),
        "layers.1.attention.wo": (2, 8, 4.0),
    }
    from lowrank.adapters import lora_layer
    from lowrank.layers.lora import initial_matrices

    for path, config in configs.items():
        layer = lora_layer(base, path)
        matrices = initial_matrices(128, 128, config.rank, torch.Generator().manual_seed(1), torch.device("cpu"))
        layer.add("hat", config, *matrices, trainable=False)
    save_adapter(base, "hat", tmp_path / "saved")
    load_adapter(base, "again", tmp_path / "saved")
    assert layer_configs(base, "again") == layer_configs(base, "hat")


REFUSED = {
    "peft_type": ["IA3"],
    "target_modules": [["q_proj", "lm_head"], ".*(q_proj|lm_head)", ["embed_tokens"], ["nothing"], "nothing", "(", []],
    "exclude_modules": [["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "(", 3],
    "layers_to_transform": [[5], "1", [0.5], [True]],
    "layers_pattern": [3],
    "rank_pattern": [{"q_proj": 0}, {"q_proj": "4"}, {"(": 4}, ["q_proj"]],
    "alpha_pattern": [{"q_proj": "4"}, {"q_proj": float("nan")}, {"(": 4}, ["q_proj"]],
    "r": [0, "8"],
    "lora_alpha": [None, "16"],
    "lora_dropout": [1.5, "0.1"],
    "use_rslora": ["yes"],
    "bias": ["all", "lora_only"],
    "init_lora_weights": ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "mica"],
    "modules_to_save": [["lm_head"]],
    "megatron_config": [{"hidden_size": 8}],
    "trainable_token_indices": [[5], {"embed_tokens": [5]}],
    "use_dora": [True],
    "velora_config": [{"rank": 1}],
    "alora_invocation_tokens": [[5]],
    "use_qalora": [True],
    "monteclora_config": [{"num_samples": 2}],
    "layer_replication": [[[0, 2]]],
    "lora_bias": [True],
    "target_parameters": [["experts"]],
    "use_bdlora": [{"nblocks": 2}],
    "arrow_config": [{"top_k": 2}],
    "kasa_config": [{"beta": 1e-4}],
    "an_option_of_next_year": [True, 1, "on", {"a": 1}],
}
NAMES_THE_TARGETS = {"exclude_modules", "layers_to_transform"}  # what is left of the targets is told then


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in REFUSED.items() for value in values], ids=str
)
def test_an_option_that_is_not_done_here_is_refused_by_name(
    key: str, value: Any, base, hf_folder: Path, tmp_path: Path
) -> None:
    folder = hf_folder / "adapter-end"
    (tmp_path / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes())
    config = json.loads((folder / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {key: value}))
    named = f"{key}|target_modules" if key in NAMES_THE_TARGETS else key
    with pytest.raises(ValueError, match=rf"adapter_config.json: ({named})\b"):
        load_adapter(base, "hat", tmp_path)
    assert adapter_names(base) == []


@pytest.mark.parametrize(
    ("options", "tensor"),
    [
        ({"layers_to_transform": [0]}, r"layers\.1\..* fits no linear"),
        ({"exclude_modules": ["v_proj"]}, r"v_proj.* fits no linear"),
        ({"rank_pattern": {"v_proj": 4}}, r"v_proj\.lora_A\.weight must have shape \[4, 128\]"),
    ],
    ids=lambda value: str(value),
)
def test_a_config_that_leaves_tensors_out_is_told_by_their_names(
    options, tensor, base, hf_folder: Path, tmp_path: Path
) -> None:
    folder = hf_folder / "adapter-end"
    (tmp_path / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes())
    config = json.loads((folder / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | options))
    with pytest.raises(ValueError, match=tensor):
        load_adapter(base, "hat", tmp_path)


def test_a_folder_of_peft_says_nothing_that_is_not_known(hf_folder: Path) -> None:
    known = {*HONOURED, *HARMLESS, *FIXED, *REFUSED}
    assert read_json(hf_folder / "adapter-end" / "adapter_config.json").keys() <= known


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
def test_every_field_of_peft_is_decided_on_and_stands_in_the_table() -> None:
    from peft import LoraConfig

    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    decided = {*HONOURED, *HARMLESS, *FIXED, *REFUSED}
    assert fields <= decided
    assert not set(HONOURED) & set(HARMLESS)
    table = set(re.findall(r"`(\w+)`", "\n".join(row for row in DOCS.read_text().splitlines() if row.startswith("|"))))
    assert fields <= table


OPTIONS_OF_ADD = {
    "exclude": ({"targets": "all", "exclude": ["k_proj", "w3"]}, {"exclude_modules": ["k_proj", "up_proj"]}),
    "exclude-regex": ({"exclude": r".*\.0\..*v_proj"}, {"exclude_modules": r".*\.0\..*v_proj"}),
    "layers": ({"targets": ["wq", "up_proj"], "layers": [1]}, {"layers_to_transform": [1]}),
    "one-layer": ({"targets": ["wq", "up_proj"], "layers": 0}, {"layers_to_transform": 0}),
    "regex": ({"targets": r".*layers\.1\..*(q|v|gate)_proj"}, {"target_modules": r".*layers\.1\..*(q|v|gate)_proj"}),
    "ranks": ({"rank_pattern": {"wk": 2, r"mlp\..*": 6}}, {"rank_pattern": {"k_proj": 2, r"mlp\..*": 6}}),
    "alphas": ({"alpha_pattern": {r"layers\.1\..*q_proj": 3}}, {"alpha_pattern": {r"layers\.1\..*q_proj": 3}}),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the other programs' own
@pytest.mark.parametrize(("ours", "theirs"), OPTIONS_OF_ADD.values(), ids=OPTIONS_OF_ADD)
def test_add_adapter_takes_the_linears_ranks_and_scalings_that_peft_takes(ours, theirs, base, hf_folder: Path) -> None:
    from lowrank.adapters import add_adapter
    from lowrank.model.param_names import to_hf

    names = {"wq": "q_proj", "up_proj": "up_proj"}
    targets = [names[name] for name in ours["targets"]] if isinstance(ours.get("targets"), list) else "all-linear"
    model = peft_model(hf_folder, {"target_modules": targets, **theirs})
    add_adapter(base, "hat", rank=4, alpha=12, **ours)
    configs = layer_configs(base, "hat")
    modules = {name.removeprefix("base_model.model."): module for name, module in model.named_modules()}
    adapted = {name: module for name, module in modules.items() if hasattr(module, "lora_A")}
    assert {to_hf(path) for path in configs} == set(adapted)
    for path, config in configs.items():
        module = adapted[to_hf(path)]
        assert (config.rank, config.scaling) == (module.r["default"], module.scaling["default"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"layers": [0, 7]}, "layers must be of 0 to 1, got 7"),
        ({"rank_pattern": {"wk": 0}}, "rank_pattern must be at least 1"),
        ({"alpha_pattern": {"wk": float("nan")}}, "alpha_pattern must be a finite number"),
        ({"rank_pattern": {"wx": 2}}, "unknown linear 'wx'"),
        ({"targets": "("}, "must be a regular expression"),
        ({"targets": ".*nowhere.*"}, "matches none"),
        ({"exclude": "all"}, "matches none"),
    ],
    ids=str,
)
def test_options_of_add_adapter_that_fit_nothing_are_refused(options, reason: str, base) -> None:
    from lowrank.adapters import add_adapter

    with pytest.raises(ValueError, match=reason):
        add_adapter(base, "hat", **options)
    assert adapter_names(base) == []
