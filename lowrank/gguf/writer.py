"""GGUF, llama.cpp's file of key-value pairs and tensors, written one tensor at a time; needs the `gguf` package.

Its tensors are named "blk.0.attn_q.weight"; a shape is stored last axis first, so a row-major [N, K] is ggml's K x N.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
import numpy.typing as npt

from ..model.config import ModelConfig

ARCHITECTURE = gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA]

Array = npt.NDArray[np.float32] | npt.NDArray[np.float16]


class Spec(NamedTuple):
    """Shape and dtype of a tensor that is to be written."""

    shape: tuple[int, ...]
    dtype: npt.DTypeLike


def tensor_name(name: str, n_layers: int) -> str:
    """ "layers.0.attention.wq.weight" -> "blk.0.attn_q.weight\""""
    translated = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, n_layers).get_name(name.removesuffix(".weight"))
    assert translated is not None, name
    return f"{translated}.weight"


def model_writer(name: str, config: ModelConfig, dtype: npt.DTypeLike) -> gguf.GGUFWriter:
    """A writer that knows the shape of a Llama; norms are float32 in every file, the rest is in `dtype`."""
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    half = np.dtype(dtype) == np.float16
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_rope_dimension_count(config.head_dim)
    if config.own_head_dim is not None:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling and config.rope_scaling.kind == "linear":  # Llama 3's is a tensor: `rope_factors`
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    return writer


def adapter_writer(name: str, alpha: float, values: Mapping[str, str]) -> gguf.GGUFWriter:
    """A writer for an adapter: llama.cpp adds alpha / r * lora_b lora_a, r being that of each pair. values: by key."""
    writer = gguf.GGUFWriter(None, ARCHITECTURE)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_name(name)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for key, value in values.items():
        writer.add_string(key, value)
    return writer


def write_gguf(
    path: Path, writer: gguf.GGUFWriter, specs: Mapping[str, Spec], tensors: Iterable[tuple[str, Array]]
) -> None:
    """Writes header and tensors, which may come in any order, reads all of it back, and compares

    specs  every tensor that is to come, in the order of the file
    Raises OSError naming a tensor that does not read back as it was written.
    """
    align = gguf.GGUF_DEFAULT_ALIGNMENT
    offsets, end = {}, 0
    for name, (shape, dtype) in specs.items():
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        writer.add_tensor_info(name, shape, np.dtype(dtype), size)
        offsets[name], end = end, gguf.GGUFWriter.ggml_pad(end + size, align)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    (file,) = writer.fout
    start = gguf.GGUFWriter.ggml_pad(file.tell(), align)
    digests = {}
    with file:
        file.truncate(start + end)
        for name, array in tensors:
            assert (array.shape, array.dtype) == specs[name], (name, array.shape, array.dtype)
            file.seek(start + offsets[name])
            file.write(np.ascontiguousarray(array).data)
            digests[name] = _digest(array)
    assert digests.keys() == specs.keys(), specs.keys() - digests.keys()
    _check_read_back(path, specs, digests)


def read_gguf(path: Path) -> tuple[dict[str, object], dict[str, Array]]:
    """The values and the tensors of a file, the tensors as maps of it with the last axis last."""
    reader = gguf.GGUFReader(path)
    values = {key: field.contents() for key, field in reader.fields.items()}
    return values, {tensor.name: tensor.data for tensor in reader.tensors}


def _check_read_back(path: Path, specs: Mapping[str, Spec], digests: Mapping[str, str]) -> None:
    _, tensors = read_gguf(path)
    for name in digests.keys() | tensors.keys():
        tensor = tensors.get(name)
        if tensor is None or (tensor.shape, tensor.dtype) != specs.get(name) or _digest(tensor) != digests[name]:
            raise OSError(f"{path}: {name} does not read back as it was written")


def _digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
