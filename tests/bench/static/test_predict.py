"""The prediction from counts: its range, its least, what is called the largest waste. Nothing is timed."""

from dataclasses import replace

import pytest

from lowrank.bench.static.launches import Launch
from lowrank.bench.static.predict import GPUS, Gpu, Range, predict, training_launches
from lowrank.cli import main
from lowrank.model.config import ModelConfig

GPU = Gpu("a GPU", 1e6, 1e9, Range(1, 3), Range(5, 15), Range(0.5, 1.0), Range(0.5, 1.0))
COPY, PRODUCT = Launch("copy", 4_000_000), Launch("mm", 1_000, 8_000_000_000)


def test_a_graph_is_its_kernels_and_the_gaps_between_them() -> None:
    step = predict("step", [COPY, COPY, PRODUCT], GPU, is_graph=True)
    assert step.launches == 3
    assert step.least_ms == pytest.approx((4 + 4 + 8) / 1e3)
    assert (step.ms.low, step.ms.high) == pytest.approx(((16 + 3 * 1) / 1e3, (32 + 3 * 3) / 1e3))
    assert step.wastes[0] == ("gaps between 3 kernels", pytest.approx(6.0))


def test_without_a_graph_the_slower_of_host_and_device_counts() -> None:
    assert predict("step", [COPY], GPU, False).ms.high == pytest.approx(15 / 1e3)
    assert predict("step", [PRODUCT] * 2, GPU, False).ms.low == pytest.approx((16 + 2) / 1e3)
    assert predict("step", [COPY] * 9, GPU, False).wastes[0][0] == "the host, which starts 9 kernels"


def test_a_product_from_4_bits_is_no_faster_than_its_instructions() -> None:
    launches = [Launch("residual_kernel", 4_300_000), Launch("copy", 4_300_000)]
    ours, copy = predict("step", launches, replace(GPUS["h200"], share=Range(0.9, 1.0)), True).lines
    assert ours.kernel == "residual_kernel" and copy.busy.low == pytest.approx(1.0)
    assert 1.1 < ours.busy.low < 1.3


def test_a_training_step_is_counted_layer_by_layer() -> None:
    config = ModelConfig(dim=256, n_layers=2, n_heads=4, n_kv_heads=4, hidden_dim=512, vocab_size=64)
    passes, update = training_launches(config, 8, (2, 512))
    names = [launch.name for launch in passes]
    assert names.count("attention") == 2 and names.count("swiglu_backward_kernel") == 2
    assert {launch.name for launch in update} >= {"squares_kernel", "scale_kernel", "adamw_kernel"}


@pytest.mark.slow
def test_the_command_names_range_and_waste(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--predict", "h200"]) == 0
    said = capsys.readouterr().out
    assert "nothing here was measured" in said and "a token in a hat of rank 8: " in said
    assert said.count("waste: ") == 4 * 3 and "tokens a second" in said


def test_a_bench_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
