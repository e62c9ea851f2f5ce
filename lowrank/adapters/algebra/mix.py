"""Several hats as one: folders as a folder, or hats of a model as one more of them.

What is mixed linear by linear, and how: `combine`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ...model.llama import Llama
from ...model.param_names import LINEARS
from .. import check_new, layer_configs, lora_layer, lora_layers, unwrapped
from ..export import implied_layers
from ..stored import Pair, StoredAdapter
from .combine import Combination, Terms, combine, error_of
from .worked import Worked, WorkedLinear, read_adapters, save_worked, worked

# The order of a block's linears in Hugging Face's Llama.
HF_ORDER = (
    *("attention.wq", "attention.wk", "attention.wv", "attention.wo"),
    *("feed_forward.w1", "feed_forward.w3", "feed_forward.w2"),
)


def mix_adapters(
    adapters: Sequence[tuple[str | Path, float]],
    out: str | Path,
    how: Combination | None = None,
    *,
    force: bool = False,
) -> Worked:
    """Writes a hat that is sum_i w_i delta W_i, as near as the method comes to it.

    adapters  folders and their weights w_i
    how       `Combination()`: the best product of the largest rank
    force     takes hats of different bases
    A linear that some hats leave out is mixed of the others.
    Raises ValueError for no hat, hats of different bases, a DoRA, rows of an embedding, and what `combine` refuses.
    """
    how = how or Combination()
    if not adapters:
        raise ValueError("a mix must be of one hat or more, got none")
    read = read_adapters([folder for folder, _ in adapters], force=force)
    weights = [_finite(weight, folder) for folder, weight in adapters]
    terms: dict[str, list[tuple[float, Pair]]] = {}
    for weight, adapter in zip(weights, read, strict=True):
        for path, pair in adapter.pairs.items():
            terms.setdefault(path, []).append((weight, pair))
    pairs, linears = _mixed(terms, how)
    stored = replace(read[0], pairs=pairs)
    made = {"by": "mix", "weights": weights, **asdict(how)}
    save_worked(stored, out, max(map(implied_layers, read)), made, read)
    return worked(stored, linears, Path(out))


def add_mixed_adapter(
    model: Llama, name: str, mix: Mapping[str, float], how: Combination | None = None, *, trainable: bool = False
) -> Worked:
    """Adds a hat to a model that is a mix of hats it holds, frozen unless `trainable`; inactive until it is used.

    mix  {name: weight}
    Raises ValueError for an unknown name, a DoRA, and what `combine` refuses.
    """
    model, how = unwrapped(model), how or Combination()
    check_new(model, name)
    if not mix:
        raise ValueError("a mix must be of one hat or more, got none")
    terms: dict[str, list[tuple[float, Pair]]] = {}
    layers = lora_layers(model)
    for one, weight in mix.items():
        _finite(weight, f"adapter {one!r}")
        for path, config in layer_configs(model, one).items():
            if config.dora:
                raise ValueError(f"adapter {one!r} is a DoRA: its rows do not add up with another hat's")
            lora_A, lora_B = (
                matrix[one].detach().cpu().float() for matrix in (layers[path].lora_A, layers[path].lora_B)
            )
            terms.setdefault(path, []).append((float(weight), Pair(config, lora_A, lora_B)))
    pairs, linears = _mixed(terms, how)
    device = model.tok_embeddings.weight.device
    for path, pair in pairs.items():
        lora_layer(model, path).add(name, pair.config, pair.lora_A.to(device), pair.lora_B.to(device), trainable)
    return worked(StoredAdapter(Path(name), Path(name), pairs, {}), linears, None)


def _mixed(terms: Mapping[str, Terms], how: Combination) -> tuple[dict[str, Pair], list[WorkedLinear]]:
    """Each linear's hats as one; in the order of Hugging Face's modules, in which PEFT draws what dare drops."""
    names = {path.split(".", 2)[2] for path in terms}
    targets = tuple(linear for linear in LINEARS if linear in names)
    generator, found, linears = how.generator(), {}, []
    with torch.no_grad():
        for path in sorted(terms, key=_order_of_hf):
            found[path] = pair = combine(terms[path], how, generator, targets, path)
            off, wanted = error_of(pair, terms[path])
            linears.append(WorkedLinear(path, pair.config.rank, wanted, off))
    return {path: found[path] for path in terms}, linears


def _order_of_hf(path: str) -> tuple[int, int]:
    _, layer, linear = path.split(".", 2)
    return int(layer), HF_ORDER.index(linear)


def _finite(weight: float, whose: object) -> float:
    if not math.isfinite(weight):
        raise ValueError(f"{whose}: its weight in the mix must be a finite number, got {weight}")
    return float(weight)
