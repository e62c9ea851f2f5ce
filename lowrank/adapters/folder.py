"""The files of a hat in a folder, as PEFT, its older versions and MLX leave them, and what else people name instead."""

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..gguf.header import is_gguf
from ..model.config_json import read_json

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLED_FILE = "adapter_model.bin"  # PEFT's until 2023, and with safe_serialization=False
MLX_FILE = "adapters.safetensors"
MLX_KEYS = ("lora_parameters", "fine_tune_type")  # of MLX's adapter_config.json; PEFT's has neither
MOST_NAMES = 8  # of folders in a message
NO_ADAPTER = "so this is no PEFT adapter"


@dataclass(frozen=True)
class AdapterFiles:
    """The two files of a hat, and the program whose they are; a GGUF file is both."""

    kind: Literal["peft", "mlx", "gguf"]
    config: Path
    weights: Path


def find_files(folder: Path) -> AdapterFiles:
    """The files of the hat in a folder: safetensors before a pickle, as PEFT reads them.

    Raises ValueError saying what the path holds instead; hats in folders below it are named.
    """
    if is_gguf(folder):
        return AdapterFiles("gguf", folder, folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: {_no_folder_reason(folder)}")
    config = folder / CONFIG_FILE
    if not config.is_file():
        raise ValueError(f"{folder}: {CONFIG_FILE} is missing, {NO_ADAPTER}{_instead(folder)}")
    if any(key in read_json(config) for key in MLX_KEYS):
        if not (folder / MLX_FILE).is_file():
            raise ValueError(f"{folder}: {MLX_FILE} is missing beside MLX's {CONFIG_FILE}")
        return AdapterFiles("mlx", config, folder / MLX_FILE)
    for name in (WEIGHTS_FILE, PICKLED_FILE):
        if (folder / name).is_file():
            return AdapterFiles("peft", config, folder / name)
    raise ValueError(f"{folder}: {WEIGHTS_FILE} is missing, {NO_ADAPTER}{_instead(folder)}")


def adapters_below(folder: Path) -> list[Path]:
    """The folders with a hat in a folder or in one of its folders, the newest of a Trainer's checkpoints first."""
    found = [path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/{CONFIG_FILE}")]

    def order(path: Path) -> tuple[int, int, str]:
        step = re.fullmatch(r"checkpoint-(\d+)", path.name)
        return len(path.parts), -int(step[1]) if step else 0, str(path)

    return sorted(found, key=order)


def _no_folder_reason(path: Path) -> str:
    if not path.exists():
        return "no such folder"
    if path.name in (WEIGHTS_FILE, PICKLED_FILE, MLX_FILE, CONFIG_FILE):
        return f"a file of a hat: name its folder, {path.parent}"
    return f"a file, and a hat is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"


def _instead(folder: Path) -> str:
    """The contents of the folder, as the end of a message."""
    if adapters := adapters_below(folder):
        names = ", ".join(str(path.relative_to(folder)) for path in adapters[:MOST_NAMES])
        more = f" and {len(adapters) - MOST_NAMES} more" if len(adapters) > MOST_NAMES else ""
        return f", but hats are in its folders {names}{more}: name one, such as {adapters[0]}"
    if ggufs := sorted(folder.glob("*.gguf")):
        return f": a hat in a GGUF file is named by the file, {ggufs[0]}"
    if (folder / MLX_FILE).is_file() or (folder / "adapters.npz").is_file():
        return ": it holds a hat of MLX, which is read with the adapter_config.json that mlx_lm writes beside it"
    if (folder / "config.json").is_file() or (folder / "params.json").is_file():
        return ": it holds a whole model, not a hat"
    return ""


def _has_magic(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a pickle that holds nothing but tensors: no code in it is run.

    Raises ValueError naming the file for one that is not whole, or a pickle of anything else.
    """
    if _has_magic(path, b"version https://git-lfs"):
        raise ValueError(f"{path}: a pointer of Git LFS, not the file itself: run `git lfs pull`")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a whole safetensors file (truncated?): {error}") from None
    try:
        values: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not read, as it is no pickle of tensors alone: {reason}") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not a whole file of torch.save (truncated?): {reason}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must hold tensors by name, holds a {type(values).__name__}")
    for name, value in values.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise ValueError(f"{path}: must hold tensors by name, holds a {type(value).__name__} as {name!r}")
    return {name: value.detach() for name, value in values.items()}
