"""A folder as it is: figures against the whole tensor, hashes against those of the files and the bytes."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from lowrank.adapters.files import read_adapter
from lowrank.checkpoints.fingerprint import check_same_base
from lowrank.checkpoints.load import load
from lowrank.checkpoints.quantize_folder import quantize_folder
from lowrank.eval.inspect.base import inspect_base, to_json
from lowrank.eval.inspect.base_page import file_table, findings, render, tensor_table
from lowrank.model.checkpoint import open_checkpoint


@pytest.fixture
def meta(golden: Path, tmp_path: Path):
    """A copy of a two-shard folder with its checklist."""
    folder = shutil.copytree(golden / "meta-tiny-gqa-mp2", tmp_path / "meta")
    lines = [
        f"{hashlib.md5((folder / f'consolidated.0{n}.pth').read_bytes()).hexdigest()}  consolidated.0{n}.pth"
        for n in (0, 1)
    ]
    (folder / "checklist.chk").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("base", ["meta-tiny-gqa-mp2", "hf-tiny-qlora/base"])
def test_figures_of_every_tensor(golden: Path, base) -> None:
    found = inspect_base(golden / base)
    stored = dict(open_checkpoint(golden / base).tensors())
    assert [tensor.name for tensor in found.tensors] == list(stored)
    for tensor in found.tensors:
        value = stored[tensor.name]
        w = value.double()
        assert tensor.shape == tuple(w.shape) and tensor.bits_per_number == 8 * value.element_size()
        assert tensor.sha256 == hashlib.sha256(value.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        assert tensor.mean == pytest.approx(float(w.mean()), abs=1e-12)
        assert tensor.deviation == pytest.approx(float(w.std(correction=0)), rel=1e-9, abs=1e-12)
        assert tensor.largest == float(w.abs().max()) == abs(float(w[tensor.largest_at]))
        if tensor.deviation:
            away = (w - w.mean()).abs() / w.std(correction=0)
            assert tensor.outliers == int((away > 6).sum())
            assert tensor.kurtosis == pytest.approx(float(away.pow(4).mean()) - 3, rel=1e-9, abs=1e-9)
        if w.dim() == 2:
            columns, rows = w.norm(dim=0), w.norm(dim=1)
            assert (tensor.column, tensor.row) == (int(columns.argmax()), int(rows.argmax()))
            assert tensor.column_ratio == pytest.approx(float(columns.max() / columns.median()))
            assert tensor.row_ratio == pytest.approx(float(rows.max() / rows.median()))


def test_an_outlier_is_found_where_it_is(meta) -> None:
    shard = torch.load(meta / "consolidated.01.pth", weights_only=True)
    shard["layers.1.attention.wv.weight"][3, 7] = 9.0
    torch.save(shard, meta / "consolidated.01.pth")
    (meta / "checklist.chk").unlink()
    found = inspect_base(meta)
    (tensor,) = (tensor for tensor in found.tensors if tensor.name == "layers.1.attention.wv.weight")
    rows = tensor.shape[0] // 2
    assert tensor.largest_at == (rows + 3, 7) and tensor.largest == 9 and tensor.outliers >= 1
    assert tensor.column == 7 and tensor.row == rows + 3
    assert f"9 at {[rows + 3, 7]} of layers.1.attention.wv" in " ".join(findings(found))


def test_files_are_hashed_and_the_checklist_compared(meta) -> None:
    found = inspect_base(meta)
    checks = {file.name: file.check for file in found.files}
    assert checks["consolidated.00.pth"] == "checklist.chk" and checks["params.json"] == ""
    for file in found.files:
        assert file.sha256 == hashlib.sha256((meta / file.name).read_bytes()).hexdigest()
    assert "MD5 sums of consolidated.00.pth, consolidated.01.pth are right" in " ".join(findings(found))
    path = meta / "consolidated.01.pth"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="has the MD5 sum"):
        inspect_base(meta)
    assert {file.sha256 for file in inspect_base(meta, hashes=False).files} == {""}


def test_a_quantized_folder_says_its_format_and_its_list_is_compared(meta, tmp_path: Path) -> None:
    folder = quantize_folder(meta, tmp_path / "q")
    found = inspect_base(folder)
    linear = next(tensor for tensor in found.tensors if tensor.name.endswith("wq.weight"))
    assert linear.stored_as == "nf4-dq (blocks of 64, maxima of 256)" and 4 < linear.bits_per_number < 4.6
    assert {file.name: file.check for file in found.files}["model.safetensors"] == "quantization.json"
    w = load(folder).get_submodule(linear.name.removesuffix(".weight")).dequantize()
    assert linear.largest == float(w.abs().max())
    with (folder / "params.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match=r"quantization\.json says"):
        inspect_base(folder)


def test_the_fingerprint_is_the_one_that_hats_know(embedded: Path, embedded_hat) -> None:
    found = inspect_base(embedded)
    record = read_adapter(embedded_hat).record
    assert record["base"]["fingerprint"] == found.fingerprint
    check_same_base({"fingerprint": found.fingerprint}, record, "here")


def test_a_weight_that_is_not_finite_is_refused(meta) -> None:
    shard = torch.load(meta / "consolidated.00.pth", weights_only=True)
    shard["layers.0.attention.wv.weight"][0, 0] = float("nan")
    torch.save(shard, meta / "consolidated.00.pth")
    (meta / "checklist.chk").unlink()
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.wv\.weight: (holds NaN|weights must be finite)"):
        inspect_base(meta)


def test_page_tables_and_json_hold_every_tensor(golden: Path) -> None:
    found = inspect_base(golden / "hf-tiny-qlora/base")
    page = render(found)
    assert not re.search(r"(src|href)=|url\(|@import|https?://|<script", page)
    assert all(tensor.sha256 in page for tensor in found.tensors)
    for head, rows in (file_table(found), tensor_table(found)):
        assert rows and all(len(row) == len(head) for row in rows)
    json.dumps(to_json(found), allow_nan=False)
