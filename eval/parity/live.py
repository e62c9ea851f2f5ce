"""Our outputs against those of transformers, peft and bitsandbytes, run side by side on one base and one hat.

    codes, row scales, block maxima         as bitsandbytes makes them
    hidden states, logits, greedy tokens    of the base, then of the base with the hat
    loss and the gradient of each lora_A and lora_B

B rows, T positions, D model dim.
"""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowrank.adapters import adapter_parameters, add_adapter, drop_adapter, use_adapter
from lowrank.adapters.files import load_adapter, save_adapter
from lowrank.checkpoints.load import DEQUANT, load
from lowrank.extras import need
from lowrank.model.generate import generate_tokens
from lowrank.model.llama import Llama
from lowrank.model.loss import IGNORED, next_token_loss
from lowrank.model.param_names import to_hf
from lowrank.model.rope_layout import reorder_rope_rows

from .reference_models import NEEDED_FOR, CodeDifference, build_reference
from .stored import difference, logits

# In float32 (tests/golden/README.md). The bound of logits is that of the stored ones, which reach 6, and grows with
# larger ones. Hidden states are held relative to the largest of their layer, since real models have some in the
# thousands; a gradient relative to its norm.
LOGITS, LARGEST_STORED_LOGIT, HIDDEN, LOSS, GRADIENT = 2e-5, 6.0, 2e-5, 1e-4, 3e-4
# bitsandbytes finds the 8-bit code of a block maximum through a table, and now and then takes a neighbour.
NESTED_STEPS = 1

NAME = "parity"


@dataclass(frozen=True)
class Figure:
    """One comparison: the largest error, where it is, and the bound that it has to keep."""

    what: str
    error: float
    bound: float
    where: str = ""

    @property
    def has_passed(self) -> bool:
        """NaN does not pass."""
        return self.error <= self.bound


def live_parity(
    folder: Path, weights: str | None = None, adapter: Path | None = None, *, device: str = "cpu", seed: int = 0
) -> list[Figure]:
    """Every figure of the legend for a folder in the number format `weights`, in float32 on seeded random tokens.

    Without an adapter, a random one of rank 8 on all linears takes its place.
    Raises ValueError for a package that is missing, and what `load` and `load_adapter` raise.
    """
    peft, *_ = [need(name, NEEDED_FOR) for name in ("peft", "transformers", "bitsandbytes")]
    ours = load(folder, weights, torch.float32, device)
    dequantized = weights is not None and weights.startswith(DEQUANT)
    coded = load(folder, weights.removeprefix(DEQUANT), torch.float32, device) if weights and dequantized else ours
    theirs, codes = build_reference(folder, coded)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(ours.config.vocab_size, (2, 32), generator=generator).to(device)
    figures = _codes(codes) + _forward("base", ours, theirs, tokens)
    with tempfile.TemporaryDirectory() as scratch:
        if adapter is None:
            adapter = Path(scratch, "hat")
            _save_random_adapter(ours, adapter, generator)
        load_adapter(ours, NAME, adapter, trainable=True)
        use_adapter(ours, NAME)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft calls what transformers deprecates
            with_adapter = peft.PeftModel.from_pretrained(theirs, adapter, is_trainable=True).eval()
    return figures + _forward("hat", ours, theirs, tokens) + _training(ours, with_adapter, tokens)


def _save_random_adapter(model: Llama, folder: Path, generator: torch.Generator) -> None:
    """With B away from zero, so that each matrix has a gradient."""
    add_adapter(model, NAME)
    for path, parameter in adapter_parameters(model, NAME).items():
        if path.endswith("lora_B"):
            values = torch.empty(parameter.shape).normal_(std=0.02, generator=generator)
            parameter.data.copy_(values)
    save_adapter(model, NAME, folder)
    drop_adapter(model, NAME)


def _codes(differences: dict[str, CodeDifference]) -> list[Figure]:
    """The worst of every linear; nothing for a base that is not quantized."""
    figures = []
    for kind, bound in (("codes", 0.0), ("statistics", 0.0), ("nested", float(NESTED_STEPS))):
        errors = {path: getattr(found, kind) for path, found in differences.items()}
        errors = {path: float(error) for path, error in errors.items() if error is not None}
        if errors:
            figures.append(_largest(f"weights: {kind}", errors, bound))
    return figures


@torch.no_grad()
def _forward(who: str, ours: Llama, theirs: Any, tokens: Tensor) -> list[Figure]:
    with _states(_places(ours)) as mine, _states(_their_places(theirs)) as other:
        our_logits, their_logits = logits(ours, tokens), theirs(input_ids=tokens).logits.cpu()
    hidden = {place: _relative(mine[place], other[place]) for place in mine}
    departed = next((place for place, error in hidden.items() if not error <= HIDDEN), None)
    states = _largest(f"{who}: hidden states", hidden, HIDDEN)
    if departed is not None:
        states = Figure(states.what, hidden[departed], HIDDEN, f"{departed} is the first to depart")
    finite = their_logits.nan_to_num(0.0, 0.0, 0.0)  # an infinite logit makes no bound that every error keeps
    allowed = LOGITS * max(1.0, finite.abs().max().item() / LARGEST_STORED_LOGIT)
    prompts, count = tokens[:, :16], 16
    largest = difference(our_logits, their_logits).largest
    return [states, Figure(f"{who}: logits", largest, allowed), _greedy(who, ours, theirs, prompts, count)]


def _greedy(who: str, ours: Llama, theirs: Any, prompts: Tensor, count: int) -> Figure:
    """The share of the tokens that differ; NaN, and the reason, if ours has logits to choose by that are not finite."""
    what = f"{who}: greedy tokens"
    try:
        steps = list(generate_tokens(ours, prompts.tolist(), max_new_tokens=count))
    except FloatingPointError as error:
        return Figure(what, float("nan"), 0.0, str(error))
    differ = _continued(theirs, prompts, count) != torch.tensor(steps, device=prompts.device).T
    return Figure(what, differ.float().mean().item(), 0.0)


def _continued(theirs: Any, prompts: Tensor, count: int) -> Tensor:
    """The greedy tokens that transformers' own `generate` puts behind the prompts: [B, count]"""
    theirs.generation_config = need("transformers", NEEDED_FOR).GenerationConfig(do_sample=False, pad_token_id=0)
    mask = torch.ones_like(prompts)
    continued: Tensor = theirs.generate(input_ids=prompts, attention_mask=mask, max_new_tokens=count)
    return continued[:, prompts.shape[1] :]


def _training(ours: Llama, with_adapter: Any, tokens: Tensor) -> list[Figure]:
    """The mean loss over the supervised tokens of a batch, the first quarter of it masked, and its gradients."""
    labels = tokens.clone()
    labels[:, : tokens.shape[1] // 4] = IGNORED
    nats, supervised = next_token_loss(ours, tokens, labels)
    loss = nats / supervised
    loss.backward()
    their_loss = with_adapter(input_ids=tokens, labels=labels).loss
    their_loss.backward()
    their_parameters = dict(with_adapter.named_parameters())
    gradients = {}
    for path, parameter in adapter_parameters(ours, NAME).items():
        layer, _, matrix = path.rpartition(".")
        theirs = their_parameters[f"base_model.model.{to_hf(layer)}.{matrix}.default.weight"].grad
        assert parameter.grad is not None and theirs is not None, path
        if matrix == "lora_B":
            theirs = reorder_rope_rows(theirs, layer, ours.config, "half", ours.config.rope_layout)
        gap, norm = (parameter.grad - theirs).norm().item(), theirs.norm().item()
        gradients[path] = gap / norm if norm else gap
    return [
        Figure("hat: loss", abs(loss.item() / their_loss.item() - 1), LOSS),
        _largest("hat: gradients", gradients, GRADIENT),
    ]


def _places(ours: Llama) -> dict[str, nn.Module]:
    """The modules whose outputs are compared, in the order in which a token meets them."""
    layers = {f"layer {number}": layer for number, layer in enumerate(ours.layers)}
    return {"embedding": ours.tok_embeddings, **layers, "norm": ours.norm}


def _their_places(theirs: Any) -> dict[str, nn.Module]:
    layers = {f"layer {number}": layer for number, layer in enumerate(theirs.model.layers)}
    return {"embedding": theirs.model.embed_tokens, **layers, "norm": theirs.model.norm}


@contextmanager
def _states(places: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Fills up with the output of each module [B, T, D] while the block runs."""
    seen: dict[str, Tensor] = {}

    def keep(place: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            seen[place] = output if isinstance(output, Tensor) else output[0]

        return hook

    handles = [module.register_forward_hook(keep(place)) for place, module in places.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _relative(ours: Tensor, theirs: Tensor) -> float:
    """max |ours - theirs| / max |theirs|"""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def _largest(what: str, errors: dict[str, float], bound: float) -> Figure:
    """The worst of several errors; NaN is worse than any number."""
    where = max(errors, key=lambda place: float("inf") if errors[place] != errors[place] else errors[place])
    return Figure(what, errors[where], bound, where if errors[where] else "")
