"""Every number that the write-up quotes, reproduced from shapes; where it is wrong, both are shown."""

from pathlib import Path

import pytest

from lowrank.adapters import add_adapter
from lowrank.adapters.accounting import (
    adapter_file_bytes,
    adapter_parameters,
    adapters_of_size,
    base_items,
    linear_parameters,
    lora_parameters,
    model_parameters,
    trainable_parameters,
)
from lowrank.adapters.files import save_adapter
from lowrank.checkpoints.load import load
from lowrank.kernels.weights.quantized_weight import DENSE_DTYPES
from lowrank.model.config import PRESETS
from lowrank.model.param_names import LINEARS

SEVEN_B = PRESETS["7b"]


@pytest.mark.parametrize(
    ("size", "parameters", "linears"),
    [("7b", 6_738_415_616, 6_476_005_376), ("13b", 13_015_864_320, 12_687_769_600), ("70b", 68_976_648_192, None)],
)
def test_llama_2_has_the_published_number_of_parameters(size, parameters, linears) -> None:
    assert model_parameters(PRESETS[size]) == parameters
    assert linears is None or linear_parameters(PRESETS[size]) == linears


def test_a_10000_square_matrix_at_rank_8_trains_160000_numbers_which_is_0_16_percent() -> None:
    count = lora_parameters(10_000, 10_000, 8)
    assert count == 160_000
    assert count / 10_000**2 == 0.0016  # as a fraction: 0.16 %, not the write-up's 0.016 %


def test_0_016_percent_is_right_for_a_100000_square_matrix() -> None:
    assert lora_parameters(100_000, 100_000, 8) / 100_000**2 == 0.00016


def test_0_016_percent_is_right_for_7b_at_rank_2_on_wq_and_wv() -> None:
    count = adapter_parameters(SEVEN_B, 2, ["wq", "wv"])
    assert count == 1_048_576
    assert round(100 * count / model_parameters(SEVEN_B), 5) == 0.01556


@pytest.mark.parametrize(
    ("size", "rank", "targets", "count"),
    [
        ("7b", 8, ["q_proj", "v_proj"], 4_194_304),
        ("7b", 16, "all", 39_976_960),
        ("7b", 64, "all", 159_907_840),
        ("13b", 64, "all", 250_347_520),
        ("70b", 64, "all", 828_375_040),
    ],
)
def test_adapter_counts_are_pefts(size, rank, targets, count) -> None:
    assert adapter_parameters(PRESETS[size], rank, targets) == count


def test_7b_takes_13_48_gb_in_16_bits() -> None:
    assert sum(item.bytes for item in base_items(SEVEN_B, "bf16")) == 2 * 6_738_415_616 == 13_476_831_232


def test_7b_linears_take_3_238_gb_as_codes_and_the_rest_is_itemised() -> None:
    items = {item.what: item.bytes for item in base_items(SEVEN_B, "nf4-dq")}
    blocks = 6_476_005_376 // 64
    assert items["linears of the blocks, nf4-dq: codes"] == 3_238_002_688
    assert items["linears of the blocks, nf4-dq: statistics"] == blocks + 4 * (blocks // 256) + 4 * 7 * 32
    assert items["embedding, bf16"] == items["output head, bf16"] == 2 * 32_000 * 4096
    assert items["norms, bf16"] == 2 * 65 * 4096


def test_every_parameter_is_in_one_item() -> None:
    assert sum(item.parameters for item in base_items(SEVEN_B, "nf4")) == model_parameters(SEVEN_B)


@pytest.mark.slow
def test_80_mb_fits_rank_8_in_fp32_and_rank_16_in_16_bits_on_all_seven() -> None:
    found = [(shape.rank, shape.targets, shape.dtype) for shape in adapters_of_size(80e6, 0.005)]
    assert found == [(8, "all seven linears", "fp32"), (16, "all seven linears", "bf16")]
    assert {shape.bytes for shape in adapters_of_size(80e6, 0.005)} == {79_953_920}


@pytest.mark.slow
def test_67_3_mb_is_nearest_to_four_shapes_of_67_1_mb_with_0_2_mb_unexplained() -> None:
    shapes = adapters_of_size(67.3e6, 0.005)
    assert {(shape.rank, shape.targets, shape.dtype) for shape in shapes} == {
        (16, "wq, wk, wv, wo", "fp32"),
        (32, "wq, wk, wv, wo", "bf16"),
        (32, "wq, wv", "fp32"),
        (64, "wq, wv", "bf16"),
    }
    assert {shape.bytes for shape in shapes} == {67_108_864}
    assert adapters_of_size(67.3e6, 0.002) == []  # nothing ordinary is nearer


@pytest.mark.parametrize(
    ("rank", "targets", "dtype"), [(8, "all", "fp32"), (3, ["wq"], "bf16"), (16, "attention", "fp16")]
)
def test_the_bytes_of_a_file_are_those_that_are_written(tmp_path: Path, embedded: Path, rank, targets, dtype) -> None:
    model = load(embedded)
    add_adapter(model, "hat", rank=rank, targets=targets)
    save_adapter(model, "hat", tmp_path / "hat", dtype=DENSE_DTYPES[dtype])
    written = (tmp_path / "hat/adapter_model.safetensors").stat().st_size
    assert adapter_file_bytes(model.config, rank, targets, dtype) == written


def test_any_rank_finds_what_doubling_does_not() -> None:
    found = adapters_of_size(30e6, 0.01, ranks=None, targets={"all": LINEARS})
    assert [(shape.rank, shape.dtype) for shape in found] == [(3, "fp32"), (6, "bf16")]
    assert adapters_of_size(30e6, 0.01, targets={"all": LINEARS}) == []


def test_any_rank_leaves_none_out() -> None:
    found = adapters_of_size(5e6, 0.2, ranks=None, targets={"wq": ("attention.wq",)}, dtypes=("bf16",))
    every = adapters_of_size(5e6, 0.2, ranks=range(1, 40), targets={"wq": ("attention.wq",)}, dtypes=("bf16",))
    assert found == every != []


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_counts_and_the_file_are_those_of_the_adapter_itself(dora, hf_folder: Path, tmp_path: Path) -> None:
    model = load(hf_folder / "base", "nf4-dq")
    add_adapter(model, "hat", rank=3, targets=["wq", "w2"], dora=dora)
    save_adapter(model, "hat", tmp_path / "hat")
    expected = adapter_parameters(model.config, 3, ["wq", "w2"], dora=dora)
    summary = trainable_parameters(model)
    assert summary.trained == expected
    assert summary.all == expected + model_parameters(model.config)
    assert summary.percent == 100 * summary.trained / summary.all
    size = (tmp_path / "hat" / "adapter_model.safetensors").stat().st_size
    assert size == adapter_file_bytes(model.config, 3, ["wq", "w2"], "fp32", dora=dora)
