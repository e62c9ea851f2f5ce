"""The kit as files: the same bytes wherever it is made, what its schema says, and inputs that tell rules apart."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from lowrank.cli import main
from lowrank.eval.conformance.cases import cases
from lowrank.eval.conformance.kit import read_tensor, write_kit, write_tensor
from lowrank.eval.conformance.rules import RULES
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.codebooks import nf4

# Of the lines of SHA256SUMS for data/: another value is another kit, and needs another VERSION.
SUMS = "dee0604257d8a28c3d9135e1606036537d7f563a0cb51a8c69571b67e1e8d8d7"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kit(tmp_path_factory.mktemp("conformance") / "kit")


def sums_of_data(kit: Path) -> str:
    lines = [line for line in (kit / "SHA256SUMS").read_text().splitlines() if "  data/" in line]
    return sha256("\n".join(lines).encode()).hexdigest()


def test_the_vectors_have_the_same_bytes_everywhere(kit: Path) -> None:
    assert sums_of_data(kit) == SUMS
    for line in (kit / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert sha256((kit / name).read_bytes()).hexdigest() == digest


def follows(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """JSON Schema, as far as ours goes."""
    if "$ref" in schema:
        return follows(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "const" in schema:
        return bool(value == schema["const"])
    if "enum" in schema:
        return value in schema["enum"]
    if schema["type"] == "object":
        known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        return set(schema.get("required", ())) <= set(value) and all(
            follows(part, known[key], root) if key in known else other is not False and follows(part, other, root)
            for key, part in value.items()
        )
    if schema["type"] == "array":
        return all(follows(part, schema["items"], root) for part in value)
    return isinstance(value, {"string": str, "integer": int, "boolean": bool}[schema["type"]])


def test_the_manifest_follows_its_schema(kit: Path) -> None:
    schema, manifest = (json.loads((kit / name).read_text()) for name in ("schema.json", "manifest.json"))
    assert follows(manifest, schema, schema)
    manifest["cases"][0]["checks"][0]["compare"] = "roughly"
    assert not follows(manifest, schema, schema)


def test_the_lines_for_c_say_what_the_manifest_says(kit: Path) -> None:
    manifest = json.loads((kit / "manifest.json").read_text())
    text = (kit / "cases.txt").read_text()
    assert len(re.findall("^case ", text, re.M)) == len(manifest["cases"])
    assert len(re.findall("^check ", text, re.M)) == sum(len(case["checks"]) for case in manifest["cases"])
    named = set(re.findall(r"data/\S+", text))
    assert named == {str(path.relative_to(kit)) for path in (kit / "data").iterdir()}


def test_every_rule_is_asked_for_and_every_tensor_reads_back(kit: Path, tmp_path: Path) -> None:
    assert {check.rule for case in cases() for check in case.checks} == {rule.name for rule in RULES}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        values = torch.tensor([1.5, -0.0, 3e-5], dtype=dtype)
        write_tensor(tmp_path / "t.bin", values)
        name = str(dtype).removeprefix("torch.")
        assert torch.equal(read_tensor(tmp_path / "t.bin", name), values)
    with pytest.raises(ValueError, match="must hold float32, has 6 bytes"):
        (tmp_path / "t.bin").write_bytes(b"123456")
        read_tensor(tmp_path / "t.bin", "float32")


def test_reciprocals_and_divisions_differ_where_they_are_told_apart() -> None:
    w = next(case for case in cases() if case.name == "reciprocals").inputs["w"]
    absmax = w.abs().amax(dim=1, keepdim=True)
    by_reciprocal, by_division = (reference.nearest_code(x, nf4()) for x in (w * (1 / absmax), w / absmax))
    assert ((by_reciprocal != by_division).sum(dim=1) >= 3).all()


def test_back_ends_differ_where_their_nested_codes_are_told_apart() -> None:
    case = next(case for case in cases() if case.name == "nested-quantize")
    found = next(check for check in case.checks if check.rule == "nested-choice").accepted
    assert set(found) == {"nearest", "table", "bisection"}
    assert (found["nearest"] != found["table"]).sum() > 10
    assert 0 < (found["nearest"] != found["bisection"]).sum() < 10
    offset = next(check for check in case.checks if check.rule == "nested-offset").accepted["reference"]
    assert float(offset) == case.inputs["w"].amax(dim=1).double().mean()  # without a rounding


@pytest.mark.slow
def test_the_verb_writes_grades_and_runs(kit: Path, tmp_path: Path, capsys) -> None:
    assert main(["conformance", "kit", str(tmp_path / "kit")]) == 0
    assert (tmp_path / "kit/cases.txt").read_bytes() == (kit / "cases.txt").read_bytes()
    capsys.readouterr()
    assert main(["conformance", "run", "plain", "--answers", str(tmp_path / "a")]) == 1
    assert "breaks the rule 'rounding-bfloat16'" in capsys.readouterr().out
    assert main(["conformance", "grade", str(kit), str(tmp_path / "a"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0] == {
        "rule": "levels",
        "state": "kept",
        "breaks": [],
        "as_found": "",
    }
    assert main(["conformance", "run", "reference", "--table"]) == 0
    assert "keeps all" in capsys.readouterr().out
    assert main(["conformance", "grade", str(tmp_path), str(tmp_path / "a")]) == 2
    assert "is no kit" in capsys.readouterr().err
