"""A folder of full-precision weights -> a folder in 4 or 8 bits, in the naming and layout of its source.

params.json + model.safetensors    from Meta's format: Meta's names, bitsandbytes' suffixes
config.json + model.safetensors    from Hugging Face's: what transformers with bitsandbytes writes and reads
"""

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from .files import new_folder, sha256_of, write_json
from .kernels import ops
from .kernels.formats import QUANTIZED_NAMES
from .model.checkpoint import open_checkpoint
from .model.config import read_json
from .model.names import is_block_linear, to_hf
from .qlinear import to_stored

MANIFEST = "quantization.json"


def quantize_folder(base: str | Path, out: str | Path, weights: str = "nf4-dq", *, progress: bool = False) -> Path:
    """Writes `base` in the format `weights`: the seven linears of each block quantized, the rest as it is stored.

    Tensors are read one at a time. The folder appears whole or not at all, with the hash of its weights in
    quantization.json.
    Raises ValueError for a format that is none, a base that is already quantized, and whatever `open_checkpoint` does.
    """
    if weights not in QUANTIZED_NAMES:
        raise ValueError(f"weights must be one of {', '.join(QUANTIZED_NAMES)}, got {weights!r}")
    out = Path(out)
    checkpoint = open_checkpoint(base)
    if checkpoint.is_quantized:
        raise ValueError(f"{base}: is already quantized; start from the full-precision folder")
    huggingface = checkpoint.config.rope_layout == "half"
    tensors: dict[str, Tensor] = {}
    total = len(checkpoint.config.parameter_shapes())
    for name, value in tqdm(checkpoint.tensors(), "quantize", total, unit="tensor", disable=not progress):
        assert isinstance(value, Tensor), name
        key = to_hf(name) if huggingface else name
        if is_block_linear(name):
            stem = key.removesuffix(".weight")
            stored = to_stored(ops.quantize(value, weights, name=f"{base}: {name}"))
            tensors |= {stem + suffix: tensor for suffix, tensor in stored.items()}
        else:
            tensors[key] = value.contiguous()
    with new_folder(out) as aside:
        save_file(tensors, aside / "model.safetensors", metadata={"format": "pt"})
        source = Path(base)
        if huggingface:
            config = read_json(source / "config.json")
            write_json(aside / "config.json", {**config, "quantization_config": quantization_config(weights)})
        else:
            shutil.copyfile(source / "params.json", aside / "params.json")
        if (source / "tokenizer.model").exists():
            shutil.copyfile(source / "tokenizer.model", aside / "tokenizer.model")
        manifest = {"weights": weights, "sha256": {"model.safetensors": sha256_of(aside / "model.safetensors")}}
        write_json(aside / MANIFEST, manifest)
    return out


def quantization_config(weights: str) -> dict[str, Any]:
    """What transformers reads to set up bitsandbytes' layers."""
    if weights == "int8":
        return {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": weights.partition("-")[0],
        "bnb_4bit_use_double_quant": weights.endswith("-dq"),
        "bnb_4bit_compute_dtype": "float32",
        "bnb_4bit_quant_storage": "uint8",
    }
