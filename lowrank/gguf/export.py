"""An adapter, or a base, as a GGUF file for llama.cpp.

llama.cpp rotates channel pairs (2i, 2i+1) of a head of the "llama" architecture (its rope type NORM): Meta's layout, to
which the converter there moves Hugging Face's rows. So rows of wq, of wk and of their lora_B that stand in halves are
moved, and Meta's go as they are.  r rank.
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..adapters.files import read_adapter
from ..atomic_io import new_file
from ..checkpoints import fingerprint
from ..checkpoints.load import load_tokenizer
from ..checkpoints.open_base import no_tokenizer_reason, open_base
from ..checkpoints.stored_weight import from_stored
from ..data.encoding.jinja_form import jinja_form
from ..data.encoding.template import CHAT, ModelChat, Template, find, recorded
from ..kernels import ops
from ..kernels.weights.quantized_weight import DENSE_DTYPES
from ..model.checkpoint import Checkpoint, QuantizedParts
from ..model.rope_layout import reorder_rope_rows
from ..progress import ProgressBar
from .header import RECORD_KEY
from .rope_factors import ROPE_FACTORS, llama3_factors
from .tokenizer_files import NO_VOCABULARY
from .tokenizer_writer import add_tokenizer
from .writer import Spec, adapter_writer, model_writer, tensor_name, write_gguf

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
    writer = adapter_writer(Path(adapter).resolve().name, alpha, _said_of(stored.record, str(adapter)))
    with new_file(Path(out)) as aside:
        write_gguf(aside, writer, specs, tensors.items())
    return Path(out)


def export_base_gguf(
    base: str | Path, out: str | Path, *, dtype: str = "fp16", template: str = "", progress: bool = False
) -> Path:
    """Writes a base, a merged one say, as one file, which is read back and compared before it takes its name

    base      a folder of weights; quantized ones are dequantized. Its tokenizer goes along
    dtype     "fp16" or "fp32"; norms are float32 in either
    template  the name of one of our templates, which becomes the file's chat template; "chat" is the base's own. Left
              out: that of the hat that was merged in, or else the base's. Without one llama.cpp chats in ChatML
    Tensors are read, converted and written one at a time.
    Raises ValueError for another dtype, and a number that it cannot hold.
    """
    _check_dtype(dtype)
    checkpoint = open_base(base)
    config, folder = checkpoint.config, checkpoint.folder
    form = None if template == CHAT else find(template) if template else _template_of_merged(checkpoint)
    writer = model_writer(folder.resolve().name, config, DTYPES[dtype])
    reason = no_tokenizer_reason(folder)
    if not reason:
        tokenizer = load_tokenizer(folder)
        try:
            add_tokenizer(writer, tokenizer, config.vocab_size)
        except ValueError as error:
            reason = str(error)
        else:
            if template == CHAT:
                form = ModelChat.of(tokenizer)
            chat = _jinja(form, begins=tokenizer.bos_id is not None) if form else tokenizer.chat_template
            if chat:
                writer.add_chat_template(chat)
    if reason:
        writer.add_tokenizer_model(NO_VOCABULARY[0])
        warnings.warn(f"{reason}: {out} will take and give token numbers only", stacklevel=2)
    shapes = config.parameter_shapes()
    specs = {
        tensor_name(name, config.n_layers): Spec(shape, DTYPES[dtype if len(shape) > 1 else "fp32"])
        for name, shape in shapes.items()
    }
    tensors = ProgressBar(_dense_tensors(checkpoint, dtype), "export", len(shapes), unit="tensor", disable=not progress)
    named = ((tensor_name(name, config.n_layers), value.numpy()) for name, value in tensors)
    factors = {}
    if config.rope_scaling and config.rope_scaling.kind == "llama3":
        factors[ROPE_FACTORS] = llama3_factors(config.head_dim, config.rope_theta, config.rope_scaling).numpy()
        specs = {ROPE_FACTORS: Spec(factors[ROPE_FACTORS].shape, factors[ROPE_FACTORS].dtype), **specs}
    with new_file(Path(out)) as aside:
        write_gguf(aside, writer, specs, chain(factors.items(), named))
    return Path(out)


def _jinja(template: Template | ModelChat, *, begins: bool = True) -> str:
    return template.text if isinstance(template, ModelChat) else jinja_form(template, begins=begins)


def _template_of_merged(checkpoint: Checkpoint) -> Template | ModelChat | None:
    """The template of the hat that was merged into a base; None if there is none."""
    merged = fingerprint.read_record(checkpoint.folder).get("merged", {})
    return recorded(merged.get("hat", {}), str(checkpoint.folder))


def _said_of(record: Mapping[str, Any], where: str) -> dict[str, str]:
    """A hat's record in llama.cpp's keys, which its server lists, and whole in one of ours."""
    if not record:
        return {}
    values = {RECORD_KEY: json.dumps(record)}
    if template := recorded(record, where):
        if isinstance(template, ModelChat):
            values |= {"adapter.lora.task_name": CHAT}
        else:
            prefix, _, _ = template.render("\0", "").partition("\0")
            values |= {"adapter.lora.task_name": template.name, "adapter.lora.prompt_prefix": prefix}
        values |= {"tokenizer.chat_template": _jinja(template)}
    return values


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
