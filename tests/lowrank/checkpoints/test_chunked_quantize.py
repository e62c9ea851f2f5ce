"""A weight quantized in slabs is the weight quantized whole, to the bit."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lowrank.checkpoints.chunked_quantize import CHUNK, quantize_chunks
from lowrank.kernels import ops
from lowrank.kernels.weights.quantized_weight import QUANTIZED_NAMES

can_quantize_in_place = ops.can_quantize_in_place  # before the fixture takes its place
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def in_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no C library, which needs no slabs."""
    monkeypatch.setattr(ops, "can_quantize_in_place", lambda w, format, device: False)


@pytest.mark.slow
@pytest.mark.parametrize("format", QUANTIZED_NAMES)
@pytest.mark.parametrize("shape", [(3000, 256), (130, 5000), (7, 33), (1, 64), (200, 2731)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_slabs_make_what_the_whole_makes(format: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    w = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(dtype)
    slabs, whole = quantize_chunks(w, format, CPU, "w"), ops.quantize(w, format)
    assert (slabs.name, slabs.shape) == (whole.name, whole.shape)
    for part, tensor in whole.tensors().items():
        assert torch.equal(slabs.tensors()[part], tensor), part


def test_threads_take_a_slab_each_and_change_nothing() -> None:
    w = torch.randn(2000, 512, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        threaded = quantize_chunks(w, "nf4-dq", CPU, "w")
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
        w[1999, 5] = torch.nan
        with pytest.raises(ValueError, match="from row 1536 on"):
            quantize_chunks(w, "nf4-dq", CPU, "w")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    whole = ops.quantize(torch.randn(2000, 512, generator=torch.Generator().manual_seed(0)), "nf4-dq")
    assert all(torch.equal(threaded.tensors()[part], tensor) for part, tensor in whole.tensors().items())


def test_the_place_of_a_weight_that_is_not_finite_is_told() -> None:
    w = torch.zeros(4096, 256)
    assert w.numel() > CHUNK
    w[1030, 7] = torch.inf
    with pytest.raises(ValueError, match=r"^w from row 1024 on: .* finite, got inf at \[6, 7\]"):
        quantize_chunks(w, "nf4", CPU, "w")


def test_what_is_quantized_from_where_it_lies_needs_no_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "can_quantize_in_place", lambda w, format, device: True)
    monkeypatch.setattr("lowrank.checkpoints.chunked_quantize._in_threads", None)  # would fail if it were called
    w = torch.randn(2000, 512)
    whole = ops.quantize(w, "nf4-dq")
    assert all(map(torch.equal, quantize_chunks(w, "nf4-dq", CPU, "w").tensors().values(), whole.tensors().values()))
    w[1030, 7] = torch.inf
    with pytest.raises(ValueError, match=r"^w: .* finite, got inf at \[1030, 7\]"):
        quantize_chunks(w, "nf4", CPU, "w")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("format", QUANTIZED_NAMES)
def test_on_a_gpu_a_whole_weight_is_a_call_where_there_is_a_kernel(format: str, dtype: torch.dtype) -> None:
    w = torch.zeros(4, 64, dtype=dtype)
    assert can_quantize_in_place(w, format, torch.device("cuda")) == (format != "int8")


def test_a_whole_weight_is_quantized_on_its_device_by_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, quantize = [], ops.quantize

    def noted(w: torch.Tensor, format: str, *, name: str):
        calls.append((w.device.type, tuple(w.shape), format, name))
        return quantize(torch.ones(w.shape), format)

    monkeypatch.setattr(ops, "can_quantize_in_place", lambda w, format, device: device.type == "meta")
    monkeypatch.setattr(ops, "quantize", noted)
    quantize_chunks(torch.ones(4096, 256), "nf4-dq", torch.device("meta"), "layers.0.wq")  # as 2^18 weights a call: 4
    assert calls == [("meta", (4096, 256), "nf4-dq", "layers.0.wq")]
