"""The prediction from counts: its range, its least, what is called the largest waste. Nothing is timed."""

from collections import Counter
from dataclasses import replace

import pytest

from lowrank.bench.static.launches import Launch
from lowrank.bench.static.predict import GPUS, Gpu, Range, predict, training_launches
from lowrank.cli import main
from lowrank.model.config import PRESETS, ModelConfig

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


# Of one block of Llama 2 7B with a hat on every linear: q, k and v share a launch, and so do gate and up.
FORWARD = {"block_matrix_kernel": 4, "beside_kernel": 4, "mm": 7, "rms_norm_kernel": 2, "rope_kernel": 1}
FORWARD |= {"attention": 1, "swiglu_kernel": 1, "add": 1}
BACKWARD = {"block_matrix_kernel": 4, "beside_kernel": 4, "mm": 4, "matrix_gradients_kernel": 4, "rope_kernel": 1}
BACKWARD |= {"attention_backward": 3, "swiglu_backward_kernel": 1, "rms_norm_backward_kernel": 2}


@pytest.mark.parametrize("recomputes_blocks", [False, True], ids=["none", "full"])
def test_a_block_takes_44_launches_forward_and_backward(recomputes_blocks: bool) -> None:
    counts = []
    for layers in (2, 3):
        config = replace(PRESETS["7b"], n_layers=layers)
        passes, _ = training_launches(config, 8, (2, 2048), recomputes_blocks)
        counts.append(Counter(launch.name for launch in passes))
    block = Counter(FORWARD) + Counter(BACKWARD)
    if recomputes_blocks:
        block += Counter(FORWARD) - Counter(add=1)  # whose sum nothing of the block's own gradient needs
    assert block.total() == (64 if recomputes_blocks else 44)
    assert counts[1] - counts[0] == block


@pytest.mark.slow
def test_forward_and_backward_of_7b_take_1500_launches_at_most() -> None:
    passes, update = training_launches(PRESETS["7b"], 8, (2, 2048))
    assert len(passes) <= 1_500 and len(update) <= 20


@pytest.mark.slow
def test_the_command_names_range_and_waste(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--predict", "h200"]) == 0
    said = capsys.readouterr().out
    assert "nothing here was measured" in said and "a token in a hat of rank 8: " in said
    assert said.count("waste: ") == 4 * 3 and "tokens a second" in said


def test_a_bench_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
