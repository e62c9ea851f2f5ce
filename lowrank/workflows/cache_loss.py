"""The cost of keys and values in 8 or 4 bits: nats a token on documents that the embedded base has not seen, paired.

    python -m lowrank.workflows.cache_loss [HAT]

The base in 4 bits, with a hat on it if one is named, reads DOCUMENTS documents through its own cache and through each
format; a line of JSON each.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from ..bench.rows import Row
from ..data.encoding.batching import Example, collate
from ..kernels.llama_ops.linear_cross_entropy import linear_cross_entropy
from ..layers.quantized_cache import FORMATS, cache_bytes, use_cache_format
from ..model.llama import Llama
from ..model.loss import IGNORED
from .unseen_loss import DOCUMENTS, PairedCost, embedded_base, unseen_examples


def compare(adapter: Path | None = None, documents: int = DOCUMENTS) -> Iterator[Row]:
    """A row a format: bytes of 1,024 positions, nats a token, and the difference from float32's with its interval.

    adapter  the folder of a hat for the embedded base, or None
    """
    examples, model = unseen_examples(documents), embedded_base(adapter)
    cost = PairedCost(examples)
    for format in (None, *FORMATS):
        use_cache_format(model, format)
        size = cache_bytes(model.config, 1024, format) * (2 if format is None else 1)
        yield {"cache": format or "fp32", "bytes": size, **cost.figures([_nats(model, one) for one in examples])}


@torch.inference_mode()
def _nats(model: Llama, example: Example) -> float:
    """The nats of an example's completion, every key and value of it having gone through the cache."""
    tokens, labels = collate([example])
    cache = model.cache_type(model.config, 1, tokens.shape[1], torch.float32, torch.device("cpu"))
    hidden, targets = model.hidden(tokens[:, :-1], cache)[0], labels[0, 1:]
    counted = targets != IGNORED
    return float(linear_cross_entropy(hidden[counted], model.output.weight, targets[counted]))


if __name__ == "__main__":
    for row in compare(Path(sys.argv[1]) if sys.argv[1:] else None):
        print(json.dumps(row))
