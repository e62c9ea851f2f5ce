"""Tables of a TOML file as dataclasses: every key is of the type that its field declares, or refused by name."""

import difflib
import re
import tomllib
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any

# The names of other programs' settings, by that of ours.
ELSEWHERE = {
    "learning_rate": "optimizer.lr",
    "lr_scheduler_type": "optimizer.schedule",
    "lr_scheduler": "optimizer.schedule",
    "warmup_steps": "optimizer.warmup",
    "max_grad_norm": "optimizer.clip",
    "optim": "optimizer.states",
    "num_train_epochs": "run.epochs",
    "num_epochs": "run.epochs",
    "per_device_train_batch_size": "run.batch",
    "train_batch_size": "run.batch",
    "batch_size": "run.batch",
    "micro_batch_size": "run.batch",
    "gradient_accumulation_steps": "run.accumulate",
    "save_steps": "run.checkpoint_every",
    "save_total_limit": "run.keep",
    "output_dir": "run.out",
    "gradient_checkpointing": "run.recompute",
    "r": "adapter.rank",
    "lora_r": "adapter.rank",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "target_modules": "adapter.targets",
    "lora_target_modules": "adapter.targets",
    "use_rslora": "adapter.rslora",
    "max_seq_length": "data.max_tokens",
    "max_length": "data.max_tokens",
    "sequence_len": "data.max_tokens",
    "cutoff_len": "data.max_tokens",
    "sample_packing": "data.pack",
    "packing": "data.pack",
    "dataset": "data.train",
    "chat_template": "data.template",
    "base_model": "base.path",
    "model_name_or_path": "base.path",
    "load_in_4bit": "base.weights",
    "bf16": "base.dtype",
    "fp16": "base.dtype",
    "report_to": "watch.trackers",
    "eval_steps": "watch.every",
    "early_stopping_patience": "watch.patience",
}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file, in UTF-8 with or without a byte-order mark.

    Raises ValueError of one line for what is no TOML or in another encoding, with the line.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ValueError(f"{path}: must be in UTF-8, is in UTF-16") from None
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: must be in UTF-8, got byte 0x{data[error.start]:02x}") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"at line (\d+)", str(error))
        line_text = text.splitlines()[int(place[1]) - 1] if place else ""
        in_quotes = re.search(r'"[^"]*\\', line_text)
        hint = "; a path with \\ stands in single quotes" if in_quotes else ""
        raise ValueError(f"{path}: not TOML: {error}{hint}") from None


def read_table(kind: type, values: Any, where: str) -> Any:
    """A table's dataclass out of plain values.  Raises ValueError naming `where` for a key or value that it has not."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a table, got {values!r}")
    hints = {key_of(name): (name, hint) for name, hint in typing.get_type_hints(kind).items()}
    known(values, hints, where, ())
    fields = {hints[key][0]: _typed(value, hints[key][1], f"{where}.{key}") for key, value in values.items()}
    return kind(**fields)


def key_of(name: str) -> str:
    """The key of a field: "from_", which is a word of Python without its low line, is "from" in a file."""
    return name.rstrip("_")


def _typed(value: Any, hint: Any, where: str) -> Any:
    """The value if it is of the type that the field declares; a whole number will do for a float."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"{where} must be one of {', '.join(typing.get_args(hint))}, got {value!r}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    allowed = (hint,) if origin is list or not typing.get_args(hint) else typing.get_args(hint)
    for kind in allowed:
        if typing.get_origin(kind) is list and type(value) is list:
            (item,) = typing.get_args(kind)
            return [_typed(one, item, f"{where}[{number}]") for number, one in enumerate(value)]
        if type(value) is kind:
            return value
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in allowed)
    raise ValueError(f"{where} must be of type {names}, got {value!r}")


def known(values: dict[str, Any], names: Collection[str], where: str, fields: Collection[str]) -> None:
    """Raises ValueError for a key that is none of the names, with the nearest.

    fields: "table.key" of all tables, where the names are those of tables
    """
    for key in values:
        if key in names:
            continue
        near = difflib.get_close_matches(key, names, n=1)
        elsewhere = next((field for field in fields if field.partition(".")[2] == key), ELSEWHERE.get(key))
        if elsewhere:
            hint = f"here it is {elsewhere}"
        elif near:
            hint = f"did you mean {near[0]!r}?"
        else:
            hint = f"known: {', '.join(names)}"
        raise ValueError(f"{where}: unknown key {key!r}: {hint}")


def toml_value(text: str) -> Any:
    """The value as TOML reads it; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
