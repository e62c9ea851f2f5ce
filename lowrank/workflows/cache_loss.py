"""The cost of keys and values in 8 or 4 bits: nats a token on documents that the embedded base has not seen, paired.

    python -m lowrank.workflows.cache_loss [HAT]

The base in 4 bits, with a hat on it if one is named, reads DOCUMENTS documents through its own cache and through each
format; a line of JSON each.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ..adapters import use_adapter
from ..adapters.files import load_adapter
from ..bench.rows import Row
from ..checkpoints.embedded import EMBEDDED, base_folder
from ..checkpoints.load import load, load_tokenizer
from ..data.documents.document import make_documents
from ..data.encoding.batching import Example, collate, encode_all
from ..eval.metrics.bootstrap import paired_interval
from ..kernels.llama_ops.linear_cross_entropy import linear_cross_entropy
from ..layers.quantized_cache import FORMATS, cache_bytes, use_cache_format
from ..model.llama import Llama
from ..model.loss import IGNORED
from .head_loss import DOCUMENTS, NATS, SEED


def compare(adapter: Path | None = None, documents: int = DOCUMENTS) -> Iterator[Row]:
    """A row a format: bytes of 1,024 positions, nats a token, and the difference from float32's with its interval.

    hat  a folder of one for the embedded base, or None
    """
    entries = make_documents(documents, seed=SEED, split="test")
    conversations = [entry.conversation for entry in entries]
    examples, _ = encode_all(conversations, load_tokenizer(base_folder(EMBEDDED)), "alpaca", 512)
    model = load(EMBEDDED, "nf4-dq", torch.float32)
    if adapter is not None:
        load_adapter(model, "hat", adapter)
        use_adapter(model, "hat")
    tokens = [example.supervised for example in examples]
    before = None
    for format in (None, *FORMATS):
        use_cache_format(model, format)
        nats = np.column_stack([[_nats(model, example) for example in examples], tokens])
        before = nats if before is None else before
        found = paired_interval(NATS, before, nats)
        yield {
            "cache": format or "fp32",
            "bytes": cache_bytes(model.config, 1024, format) * (2 if format is None else 1),
            "nats": round(NATS.value(nats), 5),
            "difference": round(found.difference, 5),
            "low": round(found.low, 5),
            "high": round(found.high, 5),
            "documents": documents,
        }


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
