"""A GGUF file as a checkpoint: a Hugging Face folder in one file, with weights that may be in ggml's formats.

llama.cpp keeps the rows of wq and wk interleaved, and its converter moved them there out of a Hugging Face folder. They
are moved back as they are read, which is exact: a file in F32, F16 or BF16 is its folder again, to the bit, also where
4-bit weights have their maxima nested in groups of rows. Weights in other types are dequantized to float32 by the
`gguf` package, a tensor at a time.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..extras import need
from ..model.checkpoint import Checkpoint, Parameter
from ..model.config import RopeScaling
from ..model.config_json import from_hf, hf_scaling
from ..model.rope_layout import reorder_rope_rows
from ..model.tokenizer import Tokenizer
from .header import TYPES, Header, TensorInfo, read_header
from .names import to_meta
from .rope_factors import ROPE_FACTORS, llama3_factors
from .tokenizer_files import tokenizer_files, tokenizer_of

ARCHITECTURE = "llama"
# Types that hold a number each; torch has them too.
DENSE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

# What is said of a Llama: its key in config.json, and the type of its value.
_SHAPE = {
    "embedding_length": ("hidden_size", int),
    "block_count": ("num_hidden_layers", int),
    "attention.head_count": ("num_attention_heads", int),
    "attention.head_count_kv": ("num_key_value_heads", int),
    "feed_forward_length": ("intermediate_size", int),
    "context_length": ("max_position_embeddings", int),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", float),
    "rope.freq_base": ("rope_theta", float),
    "attention.key_length": ("head_dim", int),
}
_MUST_HAVE = ("embedding_length", "block_count", "attention.head_count", "feed_forward_length")
# Refused unless they have a value that leaves the mathematics as it is. 0 experts is a Llama; more are a Mixtral.
_FIXED: dict[str, tuple[object, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "rope.scaling.type": ("none", "linear"),
    "rope.scaling.attn_factor": (1.0,),
}
_HARMLESS = (
    "vocab_size",  # the rows of the embedding say it
    "rope.dimension_count",
    "attention.value_length",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "tensor_data_layout",
)


@dataclass(frozen=True)
class GGUFCheckpoint(Checkpoint):
    """An opened file: `folder` is its path, `files` are all of it.

    hf_config  the config.json that says what the header says
    """

    header: Header
    hf_config: dict[str, Any]

    @property
    def is_quantized(self) -> bool:
        """False: whatever the file holds, it is dequantized before it is quantized here."""
        return False

    @cached_property
    def types(self) -> str:
        """The types of the linears of the blocks, the commonest first: "Q4_K, Q6_K"."""
        names = Counter(TYPES[info.type].name for info in self.header.tensors.values() if len(info.shape) > 1)
        for outside in ("token_embd.weight", "output.weight"):
            if outside in self.header.tensors:
                names[TYPES[self.header.tensors[outside].type].name] -= 1
        return ", ".join(name for name, count in names.most_common() if count > 0)

    @property
    def metadata(self) -> dict[str, str]:
        """Nothing: what a GGUF file says of itself is in `header`."""
        return {}

    @property
    def is_dense(self) -> bool:
        """True if every tensor holds a number each, so that nothing was lost to a format of ggml's."""
        return all(TYPES[info.type].name in DENSE for info in self.header.tensors.values())

    def sidecars(self) -> dict[str, bytes]:
        """The files that lie beside the weights in a folder: tokenizer, its roles, chat template."""
        return tokenizer_files(self.header)

    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer in the file; None if it holds none."""
        return tokenizer_of(self.header)

    def stored(self) -> Iterator[Parameter]:
        """Every tensor under Meta's name; see `Checkpoint.stored`."""
        shapes = self.config.parameter_shapes()
        for info in self.header.tensors.values():
            if info.name == ROPE_FACTORS:
                continue
            name = to_meta(info.name)
            if name is None:
                raise ValueError(f"{self.folder}: {info.name} is no tensor of a Llama")
            if (expected := shapes.get(name, info.shape)) != info.shape:
                raise ValueError(f"{self.folder}: {info.name} must have shape {list(expected)}, got {list(info.shape)}")
            type = TYPES[info.type].name
            dtype, read = DENSE.get(type, torch.float32), partial(self._read, info, name)
            yield Parameter(name, dtype, info.nbytes, read, key=info.name, format="" if type in DENSE else type)

    def _read(self, info: TensorInfo, name: str) -> Tensor:
        value = read_tensor(self.folder, info)
        return reorder_rope_rows(value, name, self.config, "interleaved", "half")


def open_gguf(path: str | Path) -> GGUFCheckpoint:
    """Opens the file of a model, without reading any weights.

    Raises ValueError, one line with the file and the key, for a header that cannot be true, what is no Llama, and a key
    of it that may change the mathematics and is not known here.
    """
    header = read_header(path)
    config = config_of(header)
    return GGUFCheckpoint(header.path, from_hf(config, str(path)), (header.path,), header, config)


def read_tensor(path: Path, info: TensorInfo) -> Tensor:
    """One tensor, in memory of its own: F32, F16 and BF16 as they are, others in float32."""
    type = TYPES[info.type].name
    stored = np.fromfile(path, np.uint8, info.nbytes, offset=info.start)
    if stored.size != info.nbytes:
        raise ValueError(f"{path}: was cut while it was read: {info.name} is not whole")
    if type in DENSE:
        return torch.from_numpy(stored).view(DENSE[type]).view(info.shape)
    gguf = need("gguf", f"{path}: {info.name} is {type}")
    rows = stored.reshape(*info.shape[:-1], -1)
    return torch.from_numpy(gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(info.type)).reshape(info.shape))


def config_of(header: Header) -> dict[str, Any]:
    """The config.json of a header.

    Raises ValueError naming file and key for another architecture or kind of file, a key that is missing or of another
    type, and one that may change the mathematics.
    """
    path, prefix = header.path, f"{ARCHITECTURE}."
    if header.kind != "model":
        raise ValueError(f"{path}: is a GGUF file of general.type {header.kind!r}, not of a model")
    if header.architecture != ARCHITECTURE:
        raise ValueError(f"{path}: general.architecture must be {ARCHITECTURE!r}, got {header.architecture!r}")
    if int(header.values.get("split.count", 0)) > 1:
        raise ValueError(
            f"{path}: is one of {header.values['split.count']} parts of a model: join them with "
            "llama-gguf-split --merge"
        )
    values = {key.removeprefix(prefix): value for key, value in header.values.items() if key.startswith(prefix)}
    for key, value in values.items():
        if key in _FIXED and value not in _FIXED[key]:
            raise ValueError(f"{path}: {prefix}{key} must be {_FIXED[key][-1]!r} or absent, got {value!r}")
        if key not in _FIXED and key not in _SHAPE and key not in _HARMLESS:
            raise ValueError(
                f"{path}: {prefix}{key} is not known here: it may change the mathematics, so it is not passed over"
            )
    for key in _MUST_HAVE:
        if key not in values:
            raise ValueError(f"{path}: {prefix}{key} is missing")
    config: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
    for key, (name, type) in _SHAPE.items():
        if key in values:
            if not isinstance(values[key], int if type is int else int | float) or isinstance(values[key], bool):
                raise ValueError(f"{path}: {prefix}{key} must be one number, got {_short(values[key])}")
            config[name] = _shortest(values[key])
    if config["num_hidden_layers"] > len(header.tensors):
        raise ValueError(
            f"{path}: {prefix}block_count is {config['num_hidden_layers']:,}, with {len(header.tensors)} tensors in all"
        )
    config |= _vocabulary(header) | _heads(values, config, path) | _rope_scaling(header, values, config)
    return config | {"torch_dtype": "float32"}


def _shortest(value: int | float) -> int | float:
    """A float32 in the decimals by which it was written: 1e-05, where the nearest float64 is 9.999999747e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _vocabulary(header: Header) -> dict[str, Any]:
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ValueError(f"{header.path}: token_embd.weight is missing, or no matrix")
    ids = {
        f"{role}_token_id": int(header.values[key])
        for role, word in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
        if isinstance(header.values.get(key := f"tokenizer.ggml.{word}_token_id"), int)
    }
    return {"vocab_size": embedding.shape[0], "tie_word_embeddings": "output.weight" not in header.tensors, **ids}


def _heads(values: dict[str, Any], config: dict[str, Any], path: Path) -> dict[str, Any]:
    """head_dim, where the file says one; all channels of a head must turn, and values be as wide as keys."""
    head_dim = config.get("head_dim", config["hidden_size"] // max(1, config["num_attention_heads"]))
    for key in ("rope.dimension_count", "attention.value_length"):
        if values.get(key, head_dim) != head_dim:
            raise ValueError(f"{path}: {ARCHITECTURE}.{key} must be that of a head, {head_dim}, got {values[key]!r}")
    return {"num_key_value_heads": config.get("num_key_value_heads", config["num_attention_heads"])}


def _rope_scaling(header: Header, values: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """config.json's rope_scaling: linear by its factor, Llama 3's by the factors of frequencies that the file holds."""
    factor = values.get("rope.scaling.factor", values.get("rope.scale_linear", 1.0))
    if values.get("rope.scaling.type", "linear") == "linear" and factor not in (0.0, 1.0):
        return {"rope_scaling": {"rope_type": "linear", "factor": _shortest(factor)}}
    if ROPE_FACTORS not in header.tensors:
        return {}
    stored = read_tensor(header.path, header.tensors[ROPE_FACTORS]).float()
    scaling = RopeScaling("llama3", float(stored.max()))
    head_dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    expected = llama3_factors(head_dim, config.get("rope_theta", 10_000.0), scaling)
    if stored.shape != expected.shape or not torch.allclose(stored, expected, rtol=1e-4, atol=0):
        raise ValueError(
            f"{header.path}: {ROPE_FACTORS} must hold Llama 3's factors (low 1, high 4, of 8192 positions)"
        )
    return {"rope_scaling": hf_scaling(scaling)}
