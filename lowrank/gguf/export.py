"""An adapter, or a base, as a GGUF file for llama.cpp.

llama.cpp rotates channel pairs (2i, 2i+1) of a head of the "llama" architecture (its rope type NORM): Meta's layout, to
which the converter there moves Hugging Face's rows. So rows of wq, of wk and of their lora_B that stand in halves are
moved, and Meta's go as they are.  r rank.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..adapters.files import read_adapter
from ..atomic_io import new_file
from ..checkpoints import fingerprint
from ..checkpoints.load import load_tokenizer
from ..checkpoints.open_base import open_base
from ..checkpoints.stored_weight import from_stored
from ..kernels import ops
from ..kernels.weights.quantized_weight import DENSE_DTYPES
from ..model.checkpoint import Checkpoint, QuantizedParts
from ..model.rope_layout import reorder_rope_rows
from ..progress import ProgressBar
from .writer import Spec, adapter_writer, add_tokenizer, model_writer, tensor_name, write_gguf

DTYPES: dict[str, np.dtype[Any]] = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}


def export_adapter_gguf(
    adapter: str | Path, base: str | Path, out: str | Path, *, dtype: str = "fp32", force: bool = False
) -> Path:
    """Writes an adapter as one file, which is read back and compared before it takes its name

    llama.cpp adds alpha / r * lora_b lora_a, with one alpha a file and the r of each pair: where scaling * r is another
    than the commonest, lora_b is multiplied by the quotient.
    base  how many rows a head has; the adapter is refused if it was made for another (unless `force`)
    Raises ValueError for another dtype than "fp32" and "fp16", a number that it cannot hold, and an alpha of 0.
    """
    _check_dtype(dtype)
    checkpoint = open_base(base)
    source = None if force else {"fingerprint": fingerprint.fingerprint_of(checkpoint)}
    stored = read_adapter(adapter, checkpoint.config, source, force=force)
    stored.refuse_beyond_lora("llama.cpp's file of a hat")
    alphas = {path: pair.config.scaling * pair.config.rank for path, pair in stored.pairs.items()}
    alpha, _ = Counter(alphas.values()).most_common(1)[0]
    if alpha == 0:
        raise ValueError(f"{adapter}: lora_alpha must not be 0: in GGUF that says a scaling of 1")
    tensors = {}
    for path in stored.pairs:
        _, lora_A, lora_B, _ = stored.pairs[path]
        lora_B = reorder_rope_rows(lora_B, path, checkpoint.config, "half", "interleaved") * (alphas[path] / alpha)
        for suffix, value in (("lora_a", lora_A), ("lora_b", lora_B)):
            narrow = _finite(value.to(DENSE_DTYPES[dtype]), f"{adapter}: {path}.{suffix}", dtype)
            tensors[f"{tensor_name(path, checkpoint.config.n_layers)}.{suffix}"] = narrow.contiguous().numpy()
    specs = {name: Spec(array.shape, array.dtype) for name, array in tensors.items()}
    with new_file(Path(out)) as aside:
        write_gguf(aside, adapter_writer(Path(adapter).resolve().name, alpha), specs, tensors.items())
    return Path(out)


def export_base_gguf(base: str | Path, out: str | Path, *, dtype: str = "fp16", progress: bool = False) -> Path:
    """Writes a base, a merged one say, as one file, which is read back and compared before it takes its name

    base   a folder of weights; quantized ones are dequantized. Its tokenizer goes along
    dtype  "fp16" or "fp32"; norms are float32 in either
    Tensors are read, converted and written one at a time.
    Raises ValueError for another dtype, and a number that it cannot hold.
    """
    _check_dtype(dtype)
    checkpoint = open_base(base)
    config, folder = checkpoint.config, checkpoint.folder
    tokenizer = load_tokenizer(folder) if (folder / "tokenizer.model").exists() else None
    if tokenizer is None:
        warnings.warn(f"{folder} has no tokenizer.model: {out} will take and give token numbers only", stacklevel=2)
    writer = model_writer(folder.resolve().name, config, DTYPES[dtype])
    add_tokenizer(writer, tokenizer)
    shapes = config.parameter_shapes()
    specs = {
        tensor_name(name, config.n_layers): Spec(shape, DTYPES[dtype if len(shape) > 1 else "fp32"])
        for name, shape in shapes.items()
    }
    tensors = ProgressBar(_dense_tensors(checkpoint, dtype), "export", len(shapes), unit="tensor", disable=not progress)
    named = ((tensor_name(name, config.n_layers), value.numpy()) for name, value in tensors)
    with new_file(Path(out)) as aside:
        write_gguf(aside, writer, specs, named)
    return Path(out)


def _dense_tensors(base: Checkpoint, dtype: str) -> Iterator[tuple[str, Tensor]]:
    """Every parameter, rows interleaved: vectors in float32, the others in `dtype`."""
    for name, value in base.tensors():
        where = f"{base.folder}: {name}"
        if isinstance(value, QuantizedParts):
            value = ops.dequantize(from_stored(value.tensors, where))
        wanted = dtype if value.dim() > 1 else "fp32"
        rows = reorder_rope_rows(value, name, base.config, base.config.rope_layout, "interleaved")
        yield name, _finite(rows.to(DENSE_DTYPES[wanted]), where, wanted).contiguous()


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)} in GGUF, got {dtype!r}")


def _finite(value: Tensor, where: str, dtype: str) -> Tensor:
    if not torch.isfinite(value).all():
        raise ValueError(f"{where}: must be finite in {dtype}, is not")
    return value
