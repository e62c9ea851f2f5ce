"""The tensors of a quantized weight in a file: bitsandbytes' own names, shapes and bytes."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from draws import normal
from safetensors.torch import load_file
from torch import Tensor

from lowrank.checkpoints.stored_weight import SUFFIXES, from_stored, stored_layouts, to_stored
from lowrank.kernels.operators import quantized as operators
from lowrank.kernels.ops import dequantize, linear, quantize, to_fast_layout
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.reference.weights import dequantize_absmax
from lowrank.kernels.weights.codebooks import CODEBOOKS
from lowrank.kernels.weights.quantized_weight import QUANTIZED_NAMES, NestedAbsmax
from lowrank.kernels.weights.repack import repack
from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.checkpoint import QUANTIZED_SUFFIXES

EVERY_FORMAT = pytest.mark.parametrize("format", QUANTIZED_NAMES)
STATE = ".weight.quant_state.bitsandbytes__nf4"


@EVERY_FORMAT
@pytest.mark.parametrize("shape", [(6, 64), (5, 77), (1, 1)], ids=str)
def test_stored_and_read_again_is_the_same_weight(shape: tuple[int, int], format: str) -> None:
    weight = quantize(normal(*shape), format)
    again = from_stored(to_stored(weight), "here")
    assert (again.name, tuple(again.shape)) == (format, shape)
    for part, tensor in weight.tensors().items():
        assert again.tensors()[part].dtype == tensor.dtype
        assert torch.equal(again.tensors()[part], tensor), part


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "digest"),
    [
        ("int8", "0af59ff17504f25d811fd2dbcb2b8fabbd15ff7483e73ae76ac4dbf5ea76ca3e"),
        ("nf4", "7b97b3e4aa892855175f87ffc7a9c9c89b366df96a2e80c23368cdc90c871548"),
        ("nf4-dq", "b348d05310166a42c0fcdb60092377e22dd41ef667aef2a4b110d2b612b1df39"),
        ("fp4", "374e6e841edcf0f1523f52f800a30e571b93314f2c25c3fb7801d5a600264c95"),
        ("fp4-dq", "844498b2f04c8ff7f6b2133ff7d8ded525a5509c31dcda3eb7b5ac187aeb8f9c"),
    ],
)
def test_every_processor_writes_the_same_bytes(format: str, digest: str) -> None:
    """Also where a sum takes another order: 70,200 maxima are summed by several threads, where there are several."""
    w = ((torch.arange(1200 * 3744) * 2654435761 % 2**32).double() / 2**31 - 1).float().view(1200, 3744)
    stored = to_stored(quantize(w, format))
    written = hashlib.sha256(b"".join(tensor.numpy().tobytes() for _, tensor in sorted(stored.items())))
    assert written.hexdigest() == digest


def test_what_is_written_is_what_bitsandbytes_writes(hf_folder: Path) -> None:
    file, ours = (
        load_file(hf_folder / "base-bnb-nf4-dq" / "model.safetensors"),
        load_file(hf_folder / "base" / "model.safetensors"),
    )
    stems = [key.removesuffix(".weight") for key in ours if "_proj" in key]
    for stem in stems:
        theirs = {key.removeprefix(stem): tensor for key, tensor in file.items() if key.startswith(stem + ".")}
        stored = to_stored(quantize(ours[f"{stem}.weight"], "nf4-dq"))
        assert stored.keys() == theirs.keys()
        for suffix in theirs.keys() - {".weight.absmax", STATE}:
            assert torch.equal(stored[suffix], theirs[suffix]), (stem, suffix)
        assert (stored[".weight.absmax"].int() - theirs[".weight.absmax"].int()).abs().max() <= 1
        state, their_state = (json.loads(bytes(part[STATE].tolist())) for part in (stored, theirs))
        assert state | {"dtype": None} == their_state | {"dtype": None}
    assert len(stems) == 14


def test_what_bitsandbytes_wrote_is_read_and_written_alike(hf_folder: Path) -> None:
    file = load_file(hf_folder / "base-bnb-nf4-dq" / "model.safetensors")
    stem = "model.layers.1.mlp.down_proj"
    theirs = {key.removeprefix(stem): tensor for key, tensor in file.items() if key.startswith(stem + ".")}
    ours = to_stored(from_stored(theirs, "here"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[suffix], theirs[suffix]) for suffix in theirs.keys() - {STATE})


@pytest.mark.parametrize("format", ["nf4", "nf4-dq", "fp4", "fp4-dq"])
def test_block_maxima_in_float32(format: str) -> None:
    w = normal(4, 96)
    largest = torch.stack([block.abs().max() for block in w.flatten().split(64)])
    # Six maxima nested: each within half the widest gap of the 8-bit code of itself.
    bound = 0 if "dq" not in format else (largest - largest.mean()).abs().max().item() * 0.9 / 64 / 2
    absmax = quantize(w, format).absmax
    maxima = dequantize_absmax(absmax) if isinstance(absmax, NestedAbsmax) else absmax
    assert (maxima - largest).abs().max() <= bound + 2**-22


def spoiled(format: str, **changes: object) -> dict[str, Tensor]:
    """A stored weight [6, 70] in which parts are replaced or taken out (None), or keys of its state changed."""
    stored = to_stored(quantize(normal(6, 70), format))
    for suffix, value in changes.items():
        key = "." + suffix.replace("__", ".")
        if value is None:
            del stored[key]
        elif isinstance(value, dict):
            packed = json.dumps(json.loads(bytes(stored[STATE].tolist())) | value).encode()
            stored[STATE] = torch.tensor(list(packed), dtype=torch.uint8)
        else:
            stored[key] = value
    return stored


@pytest.mark.parametrize(
    ("format", "changes"),
    [
        ("nf4", {"weight__absmax": None}),
        ("nf4", {"weight__absmax": torch.ones(6)}),
        ("nf4", {"weight__quant_map": None}),
        ("nf4", {"weight__quant_map": torch.linspace(-1, 1, 16)}),
        ("nf4", {"weight": torch.zeros(209, 1, dtype=torch.uint8)}),
        ("nf4", {"state": {"shape": [6, 71]}}),
        ("nf4", {"state": {"quant_type": "fp4"}}),
        ("nf4", {"state": {"quant_type": "nf3"}}),
        ("nf4", {"state": {"blocksize": 0}}),
        ("nf4-dq", {"weight__nested_absmax": None}),
        ("nf4-dq", {"weight__nested_absmax": torch.ones(2)}),
        ("nf4-dq", {"weight__nested_quant_map": None}),
        ("nf4-dq", {"weight__nested_quant_map": torch.linspace(-1, 1, 256)}),
        ("nf4", {"weight__absmax": torch.ones(7).half()}),
        ("nf4", {"weight__absmax": torch.full((7,), torch.nan)}),
        ("nf4", {"state": {"shape": "420"}}),
        ("nf4", {"state": {"shape": [6, "70"]}}),
        ("nf4-dq", {"state": {"nested_offset": "0"}}),
        ("nf4-dq", {"state": {"nested_offset": float("nan")}}),
        ("nf4-dq", {"weight__nested_absmax": torch.full((1,), torch.inf)}),
        ("int8", {"SCB": torch.ones(6).half()}),
        ("int8", {"SCB": torch.full((6,), torch.inf)}),
        ("int8", {"SCB": torch.ones(5)}),
        ("int8", {"weight": torch.zeros(6, 70, dtype=torch.uint8)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)),
)
def test_a_part_that_is_missing_or_does_not_fit_is_refused_by_name(format: str, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"layers.0.wq"):
        from_stored(spoiled(format, **changes), "layers.0.wq")


def test_a_state_that_is_no_json_is_refused_by_name() -> None:
    stored = to_stored(quantize(normal(6, 70), "nf4")) | {STATE: torch.zeros(9, dtype=torch.uint8)}
    with pytest.raises(ValueError, match=r"layers.0.wq"):
        from_stored(stored, "layers.0.wq")


def without_fused_multiply_add() -> Tensor:
    """dynamic8 as bitsandbytes has it where 0.1 + i step is rounded twice: ATEN_CPU_CAPABILITY=default."""
    levels = [torch.tensor([0.0, 1.0])]
    for i in range(7):
        cells = 2**i
        step = (1 - torch.tensor(0.1)) / cells
        place = torch.arange(cells + 1, dtype=torch.float32)
        edges = torch.where(place < (cells + 1) // 2, torch.tensor(0.1) + step * place, 1 - step * (cells - place))
        midpoints = torch.tensor(10.0 ** (i - 6)) * ((edges[:-1] + edges[1:]) / 2)
        levels += [midpoints, -midpoints]
    return torch.cat(levels).sort().values


def one_ulp_up(levels: Tensor) -> Tensor:
    """All but zero and the ends, as no format has others there."""
    return torch.where((levels == 0) | (levels.abs() == 1), levels, levels.nextafter(torch.tensor(2.0)))


def with_own_levels(format: str, suffix: str) -> dict[str, Tensor]:
    """A stored weight [48, 128] whose map of 16 or 256 levels has other last bits than ours."""
    stored = to_stored(quantize(normal(48, 128), format))
    own = without_fused_multiply_add() if "nested" in suffix else one_ulp_up(stored[suffix])
    assert not torch.equal(own, stored[suffix])
    return stored | {suffix: own}


OWN_LEVELS = pytest.mark.parametrize(
    ("format", "suffix"),
    [("nf4-dq", ".weight.nested_quant_map"), ("nf4-dq", ".weight.quant_map"), ("fp4", ".weight.quant_map")],
)


@OWN_LEVELS
def test_levels_of_another_processor_are_used_as_stored_and_written_byte_for_byte(format: str, suffix: str) -> None:
    stored = with_own_levels(format, suffix)
    weight = from_stored(stored, "here")
    again = to_stored(weight.with_tensors({name: tensor.clone() for name, tensor in weight.tensors().items()}))
    assert again.keys() == stored.keys()
    assert all(torch.equal(again[name].view(torch.uint8), stored[name].view(torch.uint8)) for name in stored)


@OWN_LEVELS
def test_every_way_to_compute_has_the_levels_of_the_file(
    format: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = with_own_levels(format, suffix)
    weight, x = from_stored(stored, "here"), normal(3, 128, seed=1)
    ours = dequantize(quantize(normal(48, 128), format))
    if "nested" in suffix:
        monkeypatch.setattr("lowrank.kernels.weights.quantized_weight.dynamic8", lambda: stored[suffix])
    else:
        monkeypatch.setitem(CODEBOOKS, format[:3], lambda: stored[suffix])
        reference._byte_to_pair.cache_clear()
    constant = quantize(normal(48, 128), format)
    constant = constant.with_tensors(
        {name: tensor for name, tensor in weight.tensors().items() if name in constant.tensors()}
    )
    dense = reference.dequantize(constant)
    monkeypatch.undo()
    reference._byte_to_pair.cache_clear()
    assert not torch.equal(dense, ours)
    assert torch.equal(dequantize(weight), dense)
    assert torch.equal(reference.dequantize(weight), dense)
    assert torch.equal(operators.dequantize(weight, torch.float32), dense)
    assert torch.equal(operators.linear(x, weight), linear(x, weight))
    one_hot = torch.eye(128)
    assert torch.equal(linear(one_hot[5:7], weight), dense.T[5:7])
    layer = QuantLinear(to_fast_layout(weight, torch.float32))
    assert torch.equal(layer.dequantize(), dense)
    assert layer.to("cpu").quantized.tensors().keys() == weight.tensors().keys()


def test_nested_levels_of_a_file_go_along_when_a_weight_is_repacked_and_16_of_them_keep_it_as_it_is() -> None:
    nested = from_stored(with_own_levels("nf4-dq", ".weight.nested_quant_map"), "here")
    assert torch.equal(dequantize(repack(nested)), dequantize(nested))
    with pytest.raises(ValueError, match="repack: a weight must have the levels of nf4, got its own"):
        repack(from_stored(with_own_levels("nf4-dq", ".weight.quant_map"), "here"))


@pytest.mark.parametrize(("suffix", "level"), [(".weight.quant_map", 3), (".weight.nested_quant_map", 200)])
def test_a_level_that_is_3_ulp_off_is_refused_by_name(suffix: str, level: int) -> None:
    stored = to_stored(quantize(normal(6, 70), "nf4-dq"))
    bits = stored[suffix].view(torch.int32)
    bits[level] += 2
    from_stored(stored, "layers.0.wq")
    bits[level] += 1
    with pytest.raises(ValueError, match=rf"^layers.0.wq: {suffix} .* within 2 ulp: level {level} is .* [+-]3 ulp off"):
        from_stored(stored, "layers.0.wq")


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float32, torch.int8])
def test_codes_may_be_stored_under_another_dtype(storage: torch.dtype) -> None:
    weight = quantize(normal(6, 64), "nf4")
    stored = to_stored(weight)
    stored[".weight"] = stored[".weight"].flatten().view(storage)[:, None]
    assert torch.equal(from_stored(stored, "here").codes, weight.codes)


@EVERY_FORMAT
@pytest.mark.parametrize("shape", [(6, 64), (5, 77), (1, 1)], ids=str)
def test_the_layouts_that_are_planned_are_those_that_are_written(shape: tuple[int, int], format: str) -> None:
    stored = to_stored(quantize(normal(*shape), format), padded=True)
    planned = stored_layouts(shape, format)
    assert planned.keys() == stored.keys()
    for suffix, tensor in stored.items():
        layout = planned[suffix]
        assert (layout.shape, layout.dtype, layout.nbytes) == (tuple(tensor.shape), tensor.dtype, tensor.nbytes), suffix


@EVERY_FORMAT
def test_a_padded_state_is_read_like_any_other(format: str) -> None:
    weight = quantize(normal(6, 70), format)
    again = from_stored(to_stored(weight, padded=True), "here")
    assert again.name == format
    assert all(torch.equal(again.tensors()[part], tensor) for part, tensor in weight.tensors().items())


def test_the_reader_of_folders_knows_every_part() -> None:
    assert set(SUFFIXES.values()) - {".weight"} < set(QUANTIZED_SUFFIXES)


@pytest.mark.parametrize("format", ["nf4", "nf4-dq", "fp4-dq"])
def test_a_repacked_weight_is_stored_in_the_bytes_of_files(format: str) -> None:
    weight = quantize(normal(6, 128), format)
    ours, truth = to_stored(repack(weight)), to_stored(weight)
    assert list(ours) == list(truth)
    for name, tensor in truth.items():
        assert ours[name].shape == tensor.shape and torch.equal(ours[name], tensor), name
