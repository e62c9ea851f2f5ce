"""A folder of full-precision weights -> a folder in 4 or 8 bits, in the naming and layout of its source.

params.json + model.safetensors    from Meta's format: Meta's names, bitsandbytes' suffixes
config.json + model.safetensors    from Hugging Face's: what transformers with bitsandbytes writes and reads

Beyond `max_file_bytes` the weights are in model-00001-of-0000N.safetensors with an index. One tensor is in memory at a
time. N out_features, K in_features.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .. import __version__
from ..atomic_io import resumed_folder, sha256_of, write_json
from ..kernels.weights.quantized_weight import DENSE_DTYPES, QUANTIZED_NAMES
from ..model.checkpoint import Checkpoint, Parameter
from ..model.param_names import HEAD, is_block_linear, to_hf
from ..model.tensor_file import Layout
from ..model.weight_files import INDEX_FILE
from .chunked_quantize import quantize_chunks
from .config_files import quantization_config
from .fingerprint import HEADER_KEY, fingerprint_of, gguf_origin
from .head import check_head
from .load import bytes_bar
from .open_base import open_base, own_config, sidecars_of
from .safetensors_writer import PlannedFile, StreamWriter, plan_files, weight_map
from .sidecar_files import RECORD_FILE, write_files
from .stored_weight import stored_layouts, to_stored

MANIFEST = "quantization.json"
HEAD_WEIGHT = f"{HEAD}.weight"
MAX_FILE_BYTES = 5e9


def quantize_folder(
    base: str | Path,
    out: str | Path,
    weights: str = "nf4-dq",
    *,
    plan: Mapping[str, str] | None = None,
    head: str | None = None,
    max_file_bytes: float = MAX_FILE_BYTES,
    progress: bool = False,
) -> Path:
    """Writes `base` in the format `weights`: the seven linears of each block quantized, the rest as it is stored.

    plan  other formats of single linears, by their path ("layers.0.attention.wq"): see `eval.formats.mixed`
    head  of the output head: "int8" or "nf4" quantizes it too, "bf16" rounds it to that; left out, as it is stored. A
          head tied to the embedding becomes one of its own, which is not for "nf4"
    Tensors are read, quantized and written one at a time. The folder appears whole or not at all, with the SHA-256 of
    each of its files in quantization.json. Interrupted, the same call goes on where it was.
    Raises ValueError for a format that is none, a base that is already quantized, and whatever `open_base` does;
    OSError if the disk has too little room.
    """
    if weights not in QUANTIZED_NAMES:
        raise ValueError(f"weights must be one of {', '.join(QUANTIZED_NAMES)}, got {weights!r}")
    out = Path(out)
    checkpoint = open_base(base)
    is_tied = checkpoint.config.tie_embeddings
    check_head(head, is_tied)
    parameters = checkpoint.parameters()
    if any(parameter.dtype is None for parameter in parameters):
        raise ValueError(f"{base}: is already quantized; start from the full-precision folder")
    if is_tied and head is not None:
        parameters += tuple(replace(p, name=HEAD_WEIGHT) for p in parameters if p.name == "tok_embeddings.weight")
    shapes = replace(checkpoint.config, tie_embeddings=is_tied and head is None).parameter_shapes()
    format_of = _chosen(shapes, weights, plan or {}) | ({HEAD_WEIGHT: head} if head else {})
    huggingface = checkpoint.config.rope_layout == "half"
    key_of = {name: to_hf(name) if huggingface else name for name in shapes}
    files = plan_files(
        (_layouts(p, shapes[p.name], key_of[p.name], format_of.get(p.name)) for p in parameters),
        max_file_bytes,
        {HEADER_KEY: fingerprint_of(checkpoint)},
    )
    sidecars = {**sidecars_of(checkpoint), **_record(checkpoint)}
    config = "config.json" if huggingface else "params.json"
    names = [*(file.name for file in files), *([INDEX_FILE] if len(files) > 1 else []), config, *sidecars]
    with resumed_folder(out, (*names, MANIFEST)) as aside:
        writer = StreamWriter(aside, files, _identity(checkpoint, files, weights))
        _check_room(aside, writer.missing_bytes)
        pending = [parameter for parameter in parameters if key_of[parameter.name] not in writer.done]
        with bytes_bar("quantize", parameters, progress, pending) as bar:
            for parameter in pending:
                name = parameter.name
                writer.write(_tensors(parameter, key_of[name], format_of.get(name), f"{base}: {name}"))
                bar.update(parameter.nbytes)
        writer.close()
        if len(files) > 1:
            write_json(aside / INDEX_FILE, weight_map(files))
        write_files(aside, sidecars)
        if huggingface:
            source_config = own_config(checkpoint)
            if source_config.get("tie_word_embeddings"):  # the files may hold another head all the same
                source_config["tie_word_embeddings"] = is_tied and head is None
            quantized_head = head if head in QUANTIZED_NAMES else None
            described = quantization_config(weights, head=quantized_head)
            write_json(aside / config, source_config | {"quantization_config": described})
        else:
            write_files(aside, {config: checkpoint.folder / config})
        formats = {"weights": weights, **({"plan": dict(plan)} if plan else {}), **({"head": head} if head else {})}
        write_json(aside / MANIFEST, formats | {"sha256": {name: sha256_of(aside / name) for name in sorted(names)}})
    return out


def _chosen(shapes: Mapping[str, tuple[int, ...]], weights: str, plan: Mapping[str, str]) -> dict[str, str]:
    """The format of each block linear by its parameter.  Raises ValueError for a plan of other linears or formats."""
    chosen = {name: weights for name in shapes if is_block_linear(name)}
    for path, form in plan.items():
        if f"{path}.weight" not in chosen:
            raise ValueError(f"plan: {path!r} is no linear of a block of this base")
        if form not in QUANTIZED_NAMES:
            raise ValueError(f"plan: {path}: the format must be one of {', '.join(QUANTIZED_NAMES)}, got {form!r}")
        chosen[f"{path}.weight"] = form
    return chosen


def _record(checkpoint: Checkpoint) -> dict[str, Path | bytes]:
    """lowrank.json: that of the base, or the GGUF file that it is."""
    path = checkpoint.folder / RECORD_FILE
    if path.is_file():
        return {RECORD_FILE: path}
    origin = gguf_origin(checkpoint)
    return {RECORD_FILE: json.dumps({"lowrank": __version__, "gguf": origin}, indent=2).encode()} if origin else {}


def _tensors(parameter: Parameter, key: str, format: str | None, where: str) -> dict[str, Tensor]:
    """The tensors that are written for one parameter in a format, or as it is stored, by key."""
    value = parameter.read()
    assert isinstance(value, Tensor), key
    if format is None or format in DENSE_DTYPES:
        return {key: value if format is None else value.to(DENSE_DTYPES[format])}
    stored = to_stored(quantize_chunks(value, format, torch.device("cpu"), where), padded=True)
    return {key.removesuffix(".weight") + suffix: tensor for suffix, tensor in stored.items()}


def _layouts(parameter: Parameter, shape: tuple[int, ...], key: str, format: str | None) -> dict[str, Layout]:
    """Shapes and dtypes of what `_tensors` returns, by key."""
    assert parameter.dtype is not None, key
    if format is None or format in DENSE_DTYPES:
        return {key: Layout.of(shape, parameter.dtype if format is None else DENSE_DTYPES[format])}
    layouts = stored_layouts(shape, format)
    return {key.removesuffix(".weight") + suffix: layout for suffix, layout in layouts.items()}


def _identity(checkpoint: Checkpoint, files: tuple[PlannedFile, ...], weights: str) -> str:
    """One line that is the same only if the same files are quantized in the same way."""
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in checkpoint.files]
    headers = [hashlib.sha256(file.header).hexdigest() for file in files]
    return json.dumps({"lowrank": __version__, "weights": weights, "base": stats, "headers": headers})


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{needed / 1e9:.2f} GB more are needed, the disk has {free / 1e9:.2f} GB free", str(folder)
        )
