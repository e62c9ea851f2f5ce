"""Effect of merging: the same documents through the base with the hat active, and through the merged folder."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lowrank.adapters import use_adapter
from lowrank.adapters.files import load_adapter
from lowrank.adapters.merge import Merged
from lowrank.checkpoints.fingerprint import read_record
from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.data.encoding.batching import Example, encode_all
from lowrank.data.encoding.template import Conversation, template_for
from lowrank.model.llama import Llama

from ..metrics.perplexity import completion_loss
from .stored import Difference, difference, logits


@dataclass(frozen=True)
class Drift:
    """Losses in nats a completion token; logits of merged against worn, over every token of the documents."""

    documents: int
    loss_base: float
    loss_worn: float
    loss_merged: float
    logits: Difference


def measure_drift(base: Path, adapter: Path, merged: Merged, conversations: Sequence[Conversation]) -> Drift:
    """The base alone, the base with the hat active, and the merged folder, each loaded once, in float32 on the CPU

    The base is in the form that was merged into: `merged.unmerged`. Whether the hat belongs to it was asked then.
    Raises ValueError for a base without a tokenizer, or documents none of which fits into the context.
    """
    tokenizer = load_tokenizer(base)
    template = template_for({str(adapter): read_record(adapter)}, tokenizer=tokenizer)
    model = load(base, merged.unmerged, torch.float32)
    examples, _ = encode_all(conversations, tokenizer, template, model.config.max_seq_len)
    loss_base = completion_loss(model, examples)
    load_adapter(model, "hat", adapter, force=True)
    use_adapter(model, "hat")
    loss_worn, active = completion_loss(model, examples), _all_logits(model, examples)
    del model
    with warnings.catch_warnings():  # told of the base already
        warnings.simplefilter("ignore", UserWarning)
        model = load(merged.folder, merged.weights, torch.float32)
    loss_merged, merged_logits = completion_loss(model, examples), _all_logits(model, examples)
    return Drift(len(examples), loss_base, loss_worn, loss_merged, difference(merged_logits, active))


def _all_logits(model: Llama, examples: Sequence[Example]) -> Tensor:
    """[1, T, V] over the tokens of all examples, each passed alone."""
    return torch.cat([logits(model, torch.tensor([example.tokens])) for example in examples], dim=1)
