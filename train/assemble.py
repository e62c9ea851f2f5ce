"""The parts of a run, out of its config: the hat on its base, the optimizer, and the hat's files."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from lowrank.adapters import add_adapter, layer_configs, lora_layer, lora_layers, use_adapter
from lowrank.adapters.files import load_adapter, save_adapter
from lowrank.adapters.starts import LOFTQ, Factors, as_active, joined, start_adapter, start_name, start_parameters
from lowrank.checkpoints.embedded import base_folder
from lowrank.checkpoints.open_base import open_base
from lowrank.kernels.cpu.library import unavailable_reason
from lowrank.kernels.dispatch.explain import paths_in_use
from lowrank.layers.dropout_seed import BatchCounter, DropoutSeed
from lowrank.layers.lora import AdapterConfig
from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.config import ModelConfig
from lowrank.model.llama import Llama
from lowrank.model.meta_device import meta_device

from .config import TrainConfig
from .exact.llama import ExactNextToken
from .exact.optim import ExactAdamW, ExactProcess
from .optim import AdamW
from .parallel.single import SingleProcess
from .preference import DPOLoss
from .step import NextToken, Objective

REFERENCE = "reference"  # the name of the hat that a preference is learned from, kept as it was


def new_adapter(model: Llama, config: TrainConfig) -> BatchCounter:
    """Puts the hat that a config describes on a base, new or as `adapter.from` has it; returns its dropout's clock."""
    table, counter = config.adapter, BatchCounter(config.run.seed)
    if table.from_:
        load_adapter(model, table.name, table.from_, trainable=True)
        for path, options in layer_configs(model, table.name).items():
            lora_layers(model)[path].configs[table.name] = replace(options, dropout=table.dropout)
        if config.preference.loss:
            load_adapter(model, _reference_name(config), table.from_)
            for path, options in layer_configs(model, _reference_name(config)).items():
                lora_layers(model)[path].configs[_reference_name(config)] = replace(options, dropout=0.0)
    else:
        add_adapter(
            model,
            table.name,
            rank=table.rank,
            alpha=table.alpha,
            targets=table.targets,
            dropout=table.dropout,
            rslora=table.rslora,
            dora=table.dora,
            seed=config.run.seed,
        )
        start_adapter(model, table.name, table.start, _originals(model, config))
    use_adapter(model, as_active(table.name, table.start))
    for number, layer in enumerate(lora_layers(model).values()):
        layer.dropout_stream = DropoutSeed(counter, number)
    return counter


def check_originals(config: TrainConfig) -> None:
    """Raises ValueError for a start that needs the weights as they were before 4 bits, and a base that has none."""
    folder = base_folder(config.base.path)
    if config.adapter.start == LOFTQ and open_base(folder).is_quantized:
        raise ValueError(
            f"base.path: {folder}: is stored in 4 or 8 bits; adapter.start = {LOFTQ!r} needs the weights before that"
        )


def _originals(model: Llama, config: TrainConfig) -> dict[str, Tensor]:
    """W by the path of each linear that the hat covers, as the base's folder has it: for loftq; else {}."""
    if config.adapter.start != LOFTQ:
        return {}
    wanted = {f"{path}.weight": path for path in layer_configs(model, config.adapter.name)}
    parameters = open_base(base_folder(config.base.path)).parameters()
    return {wanted[one.name]: cast(Tensor, one.read()) for one in parameters if one.name in wanted}


def new_objective(config: TrainConfig) -> Objective:
    """The loss of a config, over the adapters that `new_adapter` puts on the base."""
    if not config.preference.loss:
        if config.run.numerics == "exact":
            return ExactNextToken(skips_unlearned=True)
        # A dropout draws its masks by the place in a batch: to keep the others' masks, every row is computed.
        return NextToken(skips_unlearned=not config.adapter.dropout)
    table = config.preference
    return DPOLoss(table.beta, _reference_name(config) if config.adapter.from_ else None, table.answers)


def _reference_name(config: TrainConfig) -> str:
    return f"{config.adapter.name}-{REFERENCE}"


def parameters_sha256(parameters: Mapping[str, Tensor]) -> str:
    """SHA-256 of an adapter's numbers in the order of their names."""
    digest = hashlib.sha256()
    for name, parameter in sorted(parameters.items()):
        digest.update(name.encode() + parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_trained_adapter(model: Llama, name: str, folder: Path, notes: dict[str, Any], team: SingleProcess) -> None:
    """The hat's files, from the first process; one that is sharded is gathered on a base that holds nothing else.

    One that is worn with its start subtracted becomes one of twice the rank (`starts.joined`).
    """
    if start_parameters(model, name):
        layers = {}
        for path, layer in lora_layers(model).items():
            now, start = (
                Factors(layer.lora_A[one].detach().cpu(), layer.lora_B[one].detach().cpu())
                for one in (name, start_name(name))
            )
            options, factors = joined(layer.configs[name], now, start)
            layers[path] = (options, *factors, None)
        model = only_adapter(model.config, model.source, name, layers)
    if team.shards:
        layers = {
            path: (
                layer.configs[name],
                team.gather(layer.lora_A[name].detach()).cpu(),
                team.gather(layer.lora_B[name].detach()).cpu(),
                None,
            )
            for path, layer in lora_layers(model).items()
        }
        model = only_adapter(model.config, model.source, name, layers)
    if team.is_first:
        save_adapter(model, name, folder, notes=notes)
    team.wait()


def only_adapter(
    config: ModelConfig,
    source: dict[str, str],
    name: str,
    layers: Mapping[str, tuple[AdapterConfig, Tensor, Tensor, Tensor | None]],
) -> Llama:
    """A model of shapes without data that holds one adapter, for `save_adapter`.

    source  of the base that it was trained on (`Llama.source`)
    layers  options, lora_A, lora_B, and the magnitude of a DoRA, by the path of each linear
    """
    with meta_device():
        model = Llama(config)
    model.source = source
    for path, (options, lora_A, lora_B, magnitude) in layers.items():
        lora_layer(model, path).add(name, options, lora_A, lora_B, trainable=False, magnitude=magnitude)
    return model


def new_optimizer(parameters: dict[str, nn.Parameter], config: TrainConfig, team: SingleProcess) -> AdamW:
    """AdamW as the config has it; with LoRA+ lora_B has a rate of its own."""
    table, kind = config.optimizer, ExactAdamW if config.run.numerics == "exact" else AdamW
    b1, b2 = table.betas
    rates = {name: table.lora_plus for name in parameters if name.endswith(".lora_B")}
    parts = {name: team.shard_of(parameter) for name, parameter in parameters.items()}
    return kind(parameters, (b1, b2), weight_decay=table.weight_decay, states=table.states, rates=rates, parts=parts)


def single_process(config: TrainConfig) -> SingleProcess:
    """The process of a run that has no others."""
    return ExactProcess() if config.run.numerics == "exact" else SingleProcess()


def check_machine(config: TrainConfig) -> None:
    """Raises ValueError for exact numerics where there is no C library."""
    if config.run.numerics == "exact" and (reason := unavailable_reason()):
        raise ValueError(f"run.numerics = 'exact' is computed by the C library: {reason}")


def paths_of(model: Llama, config: TrainConfig) -> dict[str, str]:
    """The paths of a run's products, by which its bits may differ: of exact ones there is one."""
    return {"numerics": "exact"} if config.run.numerics == "exact" else products_of(model)


def products_of(model: Llama) -> dict[str, str]:
    """The paths of products with the model's quantized weights (`paths_in_use`)."""
    weights = [module.quantized for module in model.modules() if isinstance(module, QuantLinear)]
    return paths_in_use(weights, model.norm.weight.dtype)


def path_differences(before: dict[str, str], now: dict[str, str]) -> str:
    """The paths that changed, in one line; empty if none did."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: {before.get(name, 'none')}, now {now.get(name, 'none')}" for name in names)
