"""Named adapters ("hats") on one frozen base: add, use, mix, drop. `files` reads and writes them.

files        a hat of a model to PEFT's files, and back
stored       a hat as its files have it, checked
folder       the files in a folder, and what people name instead
key_names    keys under the names of wrappers
peft_config  PEFT's options
mlx          the files of MLX
gguf_hat     a file of llama.cpp's
starts       numbers of a new hat that follow from its base
started_files  PEFT's PiSSA and OLoRA as ordinary hats
options      names of targets, ranges of numbers
export       PEFT's files and nothing else
merge        a hat added to the weights of its base, as a folder
merge_plan   the formats that the weights of a merge go through
survival     the part of it that the rounding leaves
algebra      hats made of hats, or of two checkpoints; merged in memory
accounting   parameters and bytes

N out_features, K in_features, r rank.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from ..layers.adapter_rows import AdapterRows
from ..layers.adapter_selection import AdapterMix, AdapterSelection, PerRow, SelectingModule, adapter_context, effective
from ..layers.dora import WORN_ALONE
from ..layers.lora import AdapterConfig, LoRALinear, initial_matrices
from ..model.llama import Llama
from .options import ATTENTION as ATTENTION
from .options import by_hf_name, names_or_pattern
from .options import check_range as check_range
from .options import resolve_targets as resolve_targets
from .peft_config import PeftConfig

MATRICES = ("lora_A", "lora_B", "lora_magnitude_vector")


def add_adapter(
    model: Llama,
    name: str,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    targets: str | Sequence[str] = "all",
    dropout: float = 0.0,
    rslora: bool = False,
    dora: bool = False,
    exclude: str | Sequence[str] = (),
    layers: int | Sequence[int] | None = None,
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
    seed: int = 0,
) -> None:
    """A new trainable adapter beside the linears of a base: y = x W^T + scaling * (drop(x) A) B    (arXiv 2106.09685)

    A starts uniform in +-1/sqrt(K), B at zero, both float32; every parameter of the base is frozen. The adapter is
    inactive until `use_adapter` names it.

    name     by which `use_adapter`, `save_adapter` and `drop_adapter` know it: letters, digits, _ and -
    rank     r, the columns of A [K, r] and the rows of B [r, N]
    alpha    scaling = alpha / rank
    targets  the linears of each block: "all" (seven), "attention" (four), or names, Meta's ("wq") or Hugging Face's
             ("q_proj"); or a regular expression of whole names as Hugging Face has them, as PEFT reads it
    dropout  the probability with which an element of x is zeroed before A, in training
    rslora   scaling = alpha / sqrt(rank) instead    (arXiv 2312.03732)
    dora     the length of each row of W is learned apart from its direction    (arXiv 2402.09353, `layers.dora`)
    exclude  linears that stay without, named as targets are
    layers   the numbers of the blocks that get it; None: all
    rank_pattern, alpha_pattern  other ranks and alphas by a linear's name, or by an expression that the end of a name
             matches, as PEFT reads them: {"wo": 4, "layers[.]0[.].*": 2}
    seed     of A's random numbers
    Raises ValueError for a name in use, an unknown target, or options out of range.
    """
    model, where = unwrapped(model), f"adapter {name!r}"
    chosen, numbers = names_or_pattern(targets, "targets"), [layers] if isinstance(layers, int) else layers
    check_new(model, name)
    check_range(AdapterConfig(rank, alpha, (), dropout, rslora, dora), where, {})
    if beyond := [number for number in numbers or () if number not in range(model.config.n_layers)]:
        raise ValueError(f"{where}: layers must be of 0 to {model.config.n_layers - 1}, got {beyond[0]}")
    ranks, alphas = by_hf_name(rank_pattern or {}), by_hf_name(alpha_pattern or {})
    for one_rank in ranks.values():
        check_range(AdapterConfig(one_rank, alpha, ()), where, {"rank": "rank_pattern"})
    for one_alpha in alphas.values():
        check_range(AdapterConfig(rank, one_alpha, ()), where, {"alpha": "alpha_pattern"})
    excluded = names_or_pattern(exclude, "exclude") if exclude else []
    blocks = None if numbers is None else list(numbers)
    rules = PeftConfig(where, rank, alpha, dropout, rslora, chosen, excluded, blocks, [], ranks, alphas, dora)
    configs = rules.layer_configs(model.config.n_layers)
    freeze_base(model)
    generator = torch.Generator().manual_seed(seed)
    device = model.tok_embeddings.weight.device
    for path, config in configs.items():
        layer = lora_layer(model, path)
        lora_A, lora_B = initial_matrices(layer.in_features, layer.out_features, config.rank, generator, device)
        layer.add(name, config, lora_A, lora_B, trainable=True)


AdapterSpec = str | Mapping[str, float] | Sequence[str | Mapping[str, float] | None] | None


def use_adapter(model: Llama, use: AdapterSpec) -> None:
    """Makes adapters active from now on, in every thread that has not chosen others by `using_adapter`.

    use  None (the base alone), one name, a weighted mix {name: weight}, or a list with one of these for each row of
         the batch
    Nothing is loaded, copied or computed.  Raises ValueError for an unknown name.
    """
    choice = resolve(model, use)
    for layer in selecting_modules(model):
        layer.active = choice


@contextmanager
def using_adapter(model: Llama, use: AdapterSpec) -> Iterator[None]:
    """`use_adapter` for a `with` block: in this thread or asyncio task only; blocks may be nested.

    A forward pass in the block keeps its choice when `gradient_checkpointing` runs it again, wherever and whenever the
    backward pass is; a text that `generate` began in the block is finished with it.
    Raises ValueError for an unknown name.
    """
    choice = resolve(model, use)
    with adapter_context(dict.fromkeys(selecting_modules(model), choice)):
        yield


def resolve(model: Llama, use: AdapterSpec) -> AdapterSelection:
    """The selection that `use_adapter` makes of its argument.  Raises ValueError as it does."""
    names = adapter_names(model)
    if use is None or isinstance(use, str | Mapping):
        mix = _mix(use, names)
        _check_alone(model, mix)
        return mix
    rows = [_mix(row, names) for row in use]
    _check_alone(model, PerRow(tuple(rows), torch.arange(len(rows))))
    mixes = tuple(dict.fromkeys(rows))
    index = torch.tensor([mixes.index(row) for row in rows], dtype=torch.int64)
    return PerRow(mixes, index.to(model.tok_embeddings.weight.device))


def _mix(use: str | Mapping[str, float] | None, names: Sequence[str]) -> AdapterMix:
    mix = {} if use is None else {use: 1.0} if isinstance(use, str) else dict(use)
    for name, weight in mix.items():
        if name not in names:
            raise ValueError(f"unknown adapter {name!r}: this model holds {list(names) or 'none'}")
        if not math.isfinite(weight):
            raise ValueError(f"adapter {name!r}: its weight in the mix must be a finite number, got {weight}")
    return tuple((name, float(weight)) for name, weight in mix.items())


def _check_alone(model: Llama, choice: AdapterSelection) -> None:
    """Raises ValueError for a DoRA, or a hat with embeddings, in a mix, at another weight than 1, or on some rows."""
    choice = effective(choice, adapter_names(model))
    if isinstance(choice, tuple) and (not choice or (len(choice) == 1 and choice[0][1] == 1.0)):
        return
    chosen = {name for mix in (choice.mixes if isinstance(choice, PerRow) else (choice,)) for name, _ in mix}
    for layer in lora_layers(model).values():
        for name in sorted(chosen & layer.lora_magnitude_vector.keys()):
            raise ValueError(f"adapter {name!r} is a DoRA: {WORN_ALONE}")
    for module in adapter_rows(model).values():
        for name in sorted(chosen & module.rows.keys()):
            raise ValueError(f"adapter {name!r} has rows of the embedding or head: {WORN_ALONE}")


def drop_adapter(model: Llama, name: str) -> None:
    """Removes an adapter from the model and leaves the base as it was.  Raises ValueError for an unknown name."""
    model = unwrapped(model)
    layers = lora_layers(model)
    for path in layer_configs(model, name):
        layer = layers[path]
        layer.active = _without(layer.active, name)
        layer.drop(name)
        if not layer.configs:
            model.set_submodule(path, layer.base)
    for path, module in adapter_rows(model).items():
        module.active = _without(module.active, name)
        if name in module.rows:
            module.drop(name)
        if not module.rows:
            model.set_submodule(path, module.base)


def _without(choice: AdapterSelection, name: str) -> AdapterSelection:
    if isinstance(choice, PerRow):
        return PerRow(tuple(tuple(part for part in mix if part[0] != name) for mix in choice.mixes), choice.index)
    return tuple(part for part in choice if part[0] != name)


def adapter_names(model: Llama) -> list[str]:
    """The names of a model's adapters, in the order in which they were added."""
    return list(dict.fromkeys(name for layer in lora_layers(model).values() for name in layer.configs))


def adapter_parameters(model: Llama, name: str) -> dict[str, nn.Parameter]:
    """The matrices of one adapter by the path of their layer: "layers.0.attention.wq.lora_A" ...

    A DoRA has "lora_magnitude_vector" [N] as well.
    """
    layers = lora_layers(model)
    return {
        f"{path}.{matrix}": getattr(layers[path], matrix)[name]
        for path in layer_configs(model, name)
        for matrix in MATRICES
        if name in getattr(layers[path], matrix)
    }


def freeze_base(model: Llama) -> None:
    """Freezes every parameter that is not an adapter's."""
    for name, parameter in model.named_parameters():
        if not any(f".{matrix}." in name for matrix in MATRICES):
            parameter.requires_grad_(False)


def unwrapped(model: nn.Module) -> Llama:
    """The model inside torch.compile's wrapper, DistributedDataParallel or DataParallel."""
    while not isinstance(model, Llama):
        inner = model._modules.get("_orig_mod") or model._modules.get("module")
        if inner is None:
            break
        model = inner
    return cast(Llama, model)


def lora_layers(model: Llama) -> dict[str, LoRALinear]:
    """Every layer that carries adapters, by its path in Meta's names, also where blocks of it were compiled."""
    modules = unwrapped(model).named_modules()
    return {path.replace("_orig_mod.", ""): module for path, module in modules if isinstance(module, LoRALinear)}


def adapter_rows(model: Llama) -> dict[str, AdapterRows]:
    """The embedding and the output head where adapters bring rows of theirs: "tok_embeddings", "output"."""
    inner = unwrapped(model)
    modules = {path: inner.get_submodule(path) for path in ("tok_embeddings", "output")}
    return {path: module for path, module in modules.items() if isinstance(module, AdapterRows)}


def selecting_modules(model: Llama) -> list[SelectingModule]:
    """Everything in a model that looks at which adapters are active."""
    return [*lora_layers(model).values(), *adapter_rows(model).values()]


def rows_module(model: Llama, path: str) -> AdapterRows:
    """The embedding or output head as one that takes rows of adapters; for the first of them, a new one around it."""
    module = model.get_submodule(path)
    if not isinstance(module, AdapterRows):
        module = AdapterRows(module).train(model.training)
        model.set_submodule(path, module)
    return module


def check_new(model: Llama, name: str) -> None:
    """Raises ValueError for a name that is in use or no word."""
    if not re.fullmatch(r"\w[\w-]*", name):
        raise ValueError(f"an adapter's name must be letters, digits, _ and -, got {name!r}")
    if hasattr(nn.ParameterDict, name):
        raise ValueError(f"an adapter cannot be called {name!r}: torch's dictionaries keep that word for themselves")
    if name in adapter_names(model):
        raise ValueError(f"adapter {name!r} is already there: drop it first, or choose another name")


def layer_configs(model: Llama, name: str) -> dict[str, AdapterConfig]:
    """The options of an adapter by the path of each layer that it covers.  Raises ValueError for an unknown name."""
    configs = {path: layer.configs[name] for path, layer in lora_layers(model).items() if name in layer.configs}
    if not configs:
        raise ValueError(f"unknown adapter {name!r}: this model holds {adapter_names(model) or 'none'}")
    return configs


def lora_layer(model: Llama, path: str) -> LoRALinear:
    """The LoRA layer at a path; for the first adapter there, a new one around the linear."""
    module = model.get_submodule(path)
    if not isinstance(module, LoRALinear):
        out_features, in_features = model.config.linear_shapes()[path.split(".", 2)[2]]
        module = LoRALinear(module, in_features, out_features).train(model.training)
        model.set_submodule(path, module)
    return module
