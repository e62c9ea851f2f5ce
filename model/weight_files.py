"""The files of weights in a folder: which of those that are there are the model, and which config describes them.

A folder is read as one of
    params.json  + consolidated.00.pth, .01.pth ...      Meta's, any number of model-parallel shards
    params.json  + model.safetensors [or shards]         the same names, quantized by `lowrank quantize`
    config.json  + model.safetensors [or shards]         Hugging Face's; a weight may be bitsandbytes' 4-bit
    config.json  + pytorch_model.bin [or shards]         the same, as torch's own files, where there are no safetensors
What else is there is told where it may have been meant, and refused where it cannot be known which of two was.
"""

import re
import warnings
from pathlib import Path

from .config_json import read_json
from .tensor_file import TensorFile

INDEX_FILE = "model.safetensors.index.json"  # the file of each tensor, where there are several files
CONFIG_FILES = ("params.json", "config.json")  # Meta's, Hugging Face's
# A model in one file, and the index of one in several; the first that is found is read.
HF_FILES = (("model.safetensors", INDEX_FILE), ("pytorch_model.bin", "pytorch_model.bin.index.json"))
_WEIGHTS = (".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".npz", ".pt", ".pth", ".safetensors")


def find_weights(folder: Path) -> tuple[Path, tuple[Path, ...]]:
    """The config of a folder, and the files of its weights.

    Raises ValueError naming the folder for a missing config, missing weights or a missing shard, and for two models.
    """
    params, config = (folder / name for name in CONFIG_FILES)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if not params.exists() and not config.exists():
        raise ValueError(f"{folder}: holds neither params.json (Meta) nor config.json (Hugging Face){_instead(folder)}")
    meta = _meta_shards(folder)
    files = _hf_files(folder, is_needed=not meta)
    if meta and files and files[0].suffix == ".bin" and not config.exists():  # torch's files are no model by themselves
        files = ()
    if meta and files and params.exists():
        raise ValueError(
            f"{folder}: holds {meta[0].name} and {files[0].name}, which may be two models: keep one of them"
        )
    if meta and not params.exists():
        if not files:
            raise ValueError(f"{folder}: holds {meta[0].name}, which is Meta's, and no params.json that describes it")
        warnings.warn(f"{folder}: {meta[0].name} is not read: config.json is of {files[0].name}", stacklevel=3)
    if not (params.exists() and config.exists()):
        return (params, meta or files) if params.exists() else (config, files)
    has_hf_names = not meta and any(key.startswith("model.") for key in TensorFile(files[0]).layouts)
    chosen, other = (config, params) if has_hf_names else (params, config)
    whose = "Hugging Face's" if has_hf_names else "Meta's"
    warnings.warn(
        f"{folder}: holds both params.json and config.json: the weights have {whose} names, {other.name} is not read",
        stacklevel=3,
    )
    return chosen, meta or files


def _meta_shards(folder: Path) -> tuple[Path, ...]:
    shards = tuple(sorted(folder.glob("consolidated.*.pth")))
    for number, shard in enumerate(shards):
        if shard.name != f"consolidated.{number:02}.pth":
            raise ValueError(f"{folder}: shard consolidated.{number:02}.pth is missing, found {shard.name}")
    return shards


def _hf_files(folder: Path, is_needed: bool) -> tuple[Path, ...]:
    """Safetensors if there are any, torch's files if not; () if there are neither, and they are not needed."""
    found: list[tuple[str, ...]] = []
    absent: list[str] = []
    for single, index in HF_FILES:
        shards = _shards(folder, index)
        gone = [name for name in shards if not (folder / name).exists()]
        others = [name for name in shards if name not in gone and name != single]
        if not (folder / single).exists() or single in shards:
            if others and gone:
                raise ValueError(f"{folder}: weights file {gone[0]} is missing, {others[0]} is there")
            found += [shards] if shards and not gone else []
        elif others:
            raise ValueError(f"{folder}: holds {single} and {others[0]}, which may be two models: keep one of them")
        else:
            found.append((single,))
        absent += gone
    if not found and is_needed:
        names = sorted(path.name for path in folder.iterdir() if path.suffix in _WEIGHTS)
        holds = f"; holds {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" if names else ""
        raise ValueError(f"{folder}: weights file {absent[0] if absent else HF_FILES[0][0]} is missing{holds}")
    if found and absent:
        warnings.warn(f"{folder}: {absent[0]} of an index is missing, and {found[0][0]} is read", stacklevel=4)
    return tuple(folder / name for name in found[0]) if found else ()


def _shards(folder: Path, index: str) -> tuple[str, ...]:
    """The names of the shards that an index lists, sorted; without one, those that belong together by their names."""
    if (folder / index).exists():
        weight_map = read_json(folder / index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError(f"{folder / index}: weight_map must name a file for each tensor, got {weight_map!r}")
        for name in weight_map.values():
            if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
                raise ValueError(f"{folder / index}: a shard must be a plain file name, got {name!r}")
        return tuple(sorted(set(weight_map.values())))
    stem, suffix, _ = index.split(".", 2)
    numbered = (re.fullmatch(rf"{stem}-\d+-of-(\d+)\.{suffix}", path.name) for path in folder.iterdir())
    counts = sorted({match[1] for match in numbered if match})
    if len(counts) > 1:
        raise ValueError(f"{folder}: holds shards of {' and of '.join(counts)}, and no {index} that says which")
    return tuple(
        f"{stem}-{number:0{len(count)}}-of-{count}.{suffix}" for count in counts for number in range(1, int(count) + 1)
    )


def _instead(folder: Path) -> str:
    """The kind of a folder without a config, if it is something that is often taken for a base."""
    if (folder / "adapter_config.json").exists():
        return ": is a hat (adapter_config.json), and its base is another folder"
    if files := sorted(folder.glob("*.gguf")):
        return f": name the file itself: {files[0]}"
    for name in CONFIG_FILES:
        if inside := sorted(folder.glob(f"*/{name}")):
            return f": is {inside[0].parent} meant?"
    return ""
