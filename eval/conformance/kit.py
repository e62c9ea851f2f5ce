"""The vectors as files: `manifest.json` for programs that read JSON, `cases.txt` for those that do not, `data/*.bin`.

A .bin is one tensor: its numbers one behind another, little-endian (bfloat16 as its 16 bits), row by row. Whoever is
graded reads the inputs of a case and writes each output that it has as ANSWERS/CASE.OUTPUT.bin in the dtype that the
check names, or ANSWERS/CASE.refused for a call that it refuses. `cases.txt` has lines of words:

    case NAME OPERATION ROWS COLUMNS BLOCKSIZE NESTED(0 or 1) DTYPE
    input NAME DTYPE COUNT FILE            of the case above it
    check OUTPUT RULE COMPARE DTYPE COUNT FILE ...
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowrank.atomic_io import new_folder, sha256_of

from .cases import DTYPES, NOT_FINITE, Case, cases
from .rules import RULES

VERSION = 1
BESIDE = ("schema.json", "LICENSE.txt", "grade.c")
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_kit(out: str | Path) -> Path:
    """Writes the kit into a folder; the same bytes wherever it is made.  Raises as `new_folder` does."""
    with new_folder(Path(out)) as aside:
        (aside / "data").mkdir()
        described = [_write_case(aside, case) for case in cases()]
        rules = [{"name": rule.name, "says": rule.says, "usually": rule.usually} for rule in RULES]
        manifest = {"kit": "nf4-conformance", "version": VERSION, "rules": rules, "cases": described}
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        (aside / "cases.txt").write_text("".join(map(_lines, described)), encoding="utf-8")
        for name in BESIDE:
            (aside / name).write_bytes(files(__package__).joinpath(name).read_bytes())
        written = sorted(path for path in aside.rglob("*") if path.is_file())
        sums = "".join(f"{sha256_of(path)}  {path.relative_to(aside)}\n" for path in written)
        (aside / "SHA256SUMS").write_text(sums, encoding="utf-8")
    return Path(out)


def write_tensor(path: Path, tensor: Tensor) -> None:
    """One tensor as a .bin."""
    path.write_bytes(to_bytes(tensor))


def to_bytes(tensor: Tensor) -> bytes:
    """Little-endian, row by row."""
    flat = tensor.detach().cpu().contiguous().flatten()
    if flat.dtype in (torch.bfloat16, torch.float16):
        return np.asarray(flat.view(torch.int16).numpy(), dtype="<i2").tobytes()
    kind = {torch.float32: "<f4", torch.uint8: "u1"}[flat.dtype]
    return np.asarray(flat.numpy(), dtype=kind).tobytes()


def read_tensor(path: Path, dtype: str) -> Tensor:
    """The inverse, [n].  Raises ValueError for a size that is no multiple of the number's."""
    data, wide = path.read_bytes(), DTYPES[dtype]
    if len(data) % wide.itemsize:
        raise ValueError(f"{path}: must hold {dtype}, has {len(data)} bytes")
    if wide in (torch.bfloat16, torch.float16):
        return torch.from_numpy(np.frombuffer(data, dtype="<i2").astype(np.int16)).view(wide)
    kind = {torch.float32: ("<f4", np.float32), torch.uint8: ("u1", np.uint8)}[wide]
    return torch.from_numpy(np.frombuffer(data, dtype=kind[0]).astype(kind[1]))


def _write_case(aside: Path, case: Case) -> dict[str, Any]:
    inputs = {name: _written(aside, f"{case.name}.{name}", tensor) for name, tensor in case.inputs.items()}
    checks = []
    for check in case.checks:
        accepted = {
            name: _written(aside, f"{case.name}.{check.output}.{name}", tensor)
            for name, tensor in check.accepted.items()
        }
        checks.append({"output": check.output, "rule": check.rule, "compare": check.compare, "accepted": accepted})
    return {
        "name": case.name,
        "operation": case.operation,
        "shape": list(case.shape),
        "blocksize": case.blocksize,
        "nested": case.nested,
        "dtype": case.dtype,
        "inputs": inputs,
        "checks": checks,
    }


def _written(aside: Path, name: str, tensor: Tensor) -> dict[str, Any]:
    write_tensor(aside / "data" / f"{name}.bin", tensor)
    return {"file": f"data/{name}.bin", "dtype": NAMES[tensor.dtype], "shape": list(tensor.shape)}


def _lines(case: Mapping[str, Any]) -> str:
    rows, columns = case["shape"]
    words = [case["name"], case["operation"], rows, columns, case["blocksize"], int(case["nested"]), case["dtype"]]
    lines = [f"case {' '.join(map(str, words))}"]
    for name, tensor in case["inputs"].items():
        lines.append(f"input {name} {tensor['dtype']} {torch.Size(tensor['shape']).numel()} {tensor['file']}")
    for check in case["checks"]:
        accepted = list(check["accepted"].values())
        of = accepted[0] if accepted else {"dtype": "float32", "shape": case["shape"]}
        assert accepted or check["compare"] == NOT_FINITE, check
        outputs = [of["dtype"], torch.Size(of["shape"]).numel(), *(one["file"] for one in accepted)]
        lines.append(f"check {check['output']} {check['rule']} {check['compare']} {' '.join(map(str, outputs))}")
    return "\n".join(lines) + "\n"
