"""An adapter as PEFT's two files and nothing else: for a program that knows no other."""

from pathlib import Path

import torch

from ..atomic_io import new_folder
from ..kernels.weights.quantized_weight import DENSE_DTYPES
from .files import write_peft_files
from .folder import find_files
from .key_names import ROWS, TOKEN_ROWS, rows_key, tensor_key
from .peft_config import read_peft_config, to_peft_config
from .started_files import without_start
from .stored import StoredAdapter, read_adapter


def export_peft(
    adapter: str | Path,
    out: str | Path,
    *,
    dtype: str = "fp32",
    base_name: str | None = None,
    base: str | Path | None = None,
) -> Path:
    """Writes adapter_config.json and adapter_model.safetensors, the matrices in `dtype`, for a base called `base_name`

    base_name  as `base_model_name_or_path`, such as "meta-llama/Llama-2-7b-hf"
    base       of a hat of PiSSA or OLoRA: what it started from, in full precision (`starts.without_start`)
    The files are read back and compared before the folder takes its name.
    Raises ValueError for PEFT options that are not supported, and a matrix that `dtype` cannot hold.
    """
    if dtype not in DENSE_DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DENSE_DTYPES)}, got {dtype!r}")
    stored = read_adapter(adapter) if base is None else without_start(adapter, base)
    with new_folder(Path(out)) as aside:
        write_stored(stored, aside, implied_layers(stored), dtype=dtype, base_name=base_name)
    return Path(out)


def write_stored(
    stored: StoredAdapter, folder: Path, layers: int, *, dtype: str = "fp32", base_name: str | None = None
) -> None:
    """PEFT's two files of an adapter that is in memory as files have it, which are read back and compared.

    layers  of a base that it fits: see `implied_layers`
    Raises ValueError for a matrix that `dtype` cannot hold.
    """
    tensors = {}
    for path, (_, lora_A, lora_B, magnitude) in stored.pairs.items():
        for matrix, value in (("lora_A", lora_A), ("lora_B", lora_B), ("lora_magnitude_vector", magnitude)):
            if value is not None:
                tensors[tensor_key(path, matrix)] = value.to(DENSE_DTYPES[dtype])
    for path, (rows, which) in stored.saved.items():
        tensors[rows_key(path, ROWS if which is None else TOKEN_ROWS)] = rows.to(DENSE_DTYPES[dtype])
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{stored.folder}: {key} must be finite in {dtype}, is not")
    rows_of = {path: saved.which for path, saved in stored.saved.items()}
    write_peft_files(folder, tensors, to_peft_config(stored.configs, layers, base_name, rows_of))


def implied_layers(stored: StoredAdapter) -> int:
    """The layers of a base that the adapter fits: those that it covers, and one more if its config stops at them.

    That one more keeps an adapter of the first layers from being written as one of all layers.
    """
    covered = 1 + max(int(path.split(".")[1]) for path in stored.pairs)
    files = find_files(stored.folder)
    if files.kind != "peft":  # others do not say where they would stop
        return covered + 1
    covers_next = read_peft_config(files.config, force=True).layer_configs(covered + 1).keys() > stored.pairs.keys()
    return covered if covers_next else covered + 1
