"""Triton launches on the current device, so each launch is made while the device of its tensors is the current one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from draws import normal
from torch import Tensor
from triton import JITFunction

from lowrank.kernels.reference import weights as reference
from lowrank.kernels.reference.decode_step import CacheWindow, StepSizes
from lowrank.kernels.triton import (
    adamw,
    cross_entropy,
    decode_attention,
    decode_step,
    decode_step_products,
    dequantize,
    gemm,
    gemv,
    int8_linear,
    launch,
    quantize,
    riding_adapters,
    rms_norm,
    rope,
    swiglu,
)
from lowrank.kernels.weights.linear_with_adapter import BlockWeights, LinearWithAdapter
from lowrank.kernels.weights.repack import repack

MODULES = (
    adamw, cross_entropy, decode_attention, decode_step, decode_step_products, dequantize,
    gemm, gemv, int8_linear, launch, quantize, riding_adapters, rms_norm, rope, swiglu,
)  # fmt: skip
ROWS, WEIGHT = normal(3, 64), reference.quantize_4bit(normal(8, 64), "nf4", 64, True)
ANGLES = torch.ones(1, 2, 1, 32)
SQUARE = LinearWithAdapter(repack(reference.quantize_4bit(normal(64, 64), "nf4", 64, True)))
ADAPTED = SQUARE._replace(lora_A=normal(8, 64), lora_B=normal(64, 8))
POSITION, HALF = torch.zeros(1, dtype=torch.int64), torch.ones(1, 1, 1, 16)
CACHE = CacheWindow(torch.zeros(1, 1, 2, 4, 32), torch.zeros(1, 1, 2, 4, 32), 4, POSITION, POSITION)
CODES = torch.zeros(3, 64, dtype=torch.uint8)
LEVELS = adamw.Levels8(*(torch.zeros(count) for count in (256, 255, 256, 255)))


def update(*moments: tuple[Tensor, ...]) -> None:
    given = adamw.Update(ROWS, ROWS, *moments, 0.1, 1.0)
    adamw.step([given], LEVELS if len(moments[0]) > 1 else None, (0.9, 0.99), 1e-8, (0.1, 0.1), 256)


LAUNCHES: dict[str, Callable[[], Any]] = {
    "adamw": lambda: update((ROWS,), (ROWS,)),
    "adamw in 8 bits": lambda: update((CODES, ROWS), (CODES, ROWS)),
    "clipping": lambda: adamw.scale([ROWS], torch.ones(())),
    "decode_step": lambda: decode_step.decode_blocks(
        normal(1, 1, 64),
        [BlockWeights(ROWS[0], ROWS[0], (SQUARE,) * 7)],
        CACHE,
        HALF,
        HALF,
        StepSizes(2, 2, 32, 1e-5, True),
    ),
    "norm": lambda: adamw.norm([ROWS]),
    "adapters' matrices": lambda: riding_adapters.write_block_matrix(normal(72, 72), [ADAPTED]),
    "adapters' inputs": lambda: riding_adapters.beside([ROWS], normal(64, 8), None),
    "adapters' gradients": lambda: riding_adapters.matrix_gradients(
        ROWS, [ROWS], normal(3, 8), normal(3, 8), [ADAPTED]
    ),
    "cross_entropy": lambda: cross_entropy.cross_entropy_(ROWS.clone(), torch.zeros(3, dtype=torch.int64), True),
    "decode_attention": lambda: decode_attention.decode_attention(
        normal(1, 2, 1, 64), normal(1, 2, 5, 64), normal(1, 2, 5, 64), torch.ones(1, 1, 1, 5, dtype=torch.bool)
    ),
    "decode_linear_backward": lambda: gemv.decode_linear_backward(normal(3, 8), repack(WEIGHT)),
    "decode_linear": lambda: gemv.decode_linear(ROWS, repack(WEIGHT), splits=2),
    "dequantize": lambda: dequantize.dequantize_4bit(WEIGHT),
    "dequantize_repacked": lambda: dequantize.dequantize_repacked(repack(WEIGHT), torch.float32),
    "fused_linear": lambda: gemm.fused_linear(ROWS.bfloat16(), repack(WEIGHT)),
    "fused_linear_backward": lambda: gemm.fused_linear_backward(normal(3, 8).bfloat16(), repack(WEIGHT)),
    "int8": lambda: int8_linear.linear(ROWS, reference.quantize_int8(normal(8, 64))),
    "quantize": lambda: quantize.quantize_4bit(normal(8, 64), double_quant=True),
    "rms_norm": lambda: rms_norm.rms_norm(ROWS, None, torch.ones(64), 1e-5),
    "rms_norm_backward": lambda: rms_norm.rms_norm_backward(ROWS, None, ROWS, torch.ones(3), torch.ones(64), True),
    "rope": lambda: rope.rope(normal(1, 2, 1, 64), ANGLES, ANGLES, True, False),
    "rope_pair": lambda: rope.rope_pair(normal(1, 2, 1, 64), normal(1, 2, 1, 64), ANGLES, ANGLES, True, False),
    "swiglu": lambda: swiglu.swiglu(ROWS, ROWS),
    "swiglu_backward": lambda: swiglu.swiglu_backward(ROWS, ROWS, ROWS),
}


def kernels(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, JITFunction) and name.endswith("_kernel")]


EVERY_KERNEL = {kernel for module in MODULES for kernel in kernels(module)}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[torch.device]]:
    """Each kernel that is launched in the test, and the devices that are current then; nothing runs."""
    current: list[torch.device] = []
    launched: dict[str, list[torch.device]] = {}

    @contextmanager
    def device_of(tensor: Tensor) -> Iterator[None]:
        current.append(tensor.device)
        yield
        current.pop()

    class NotLaunched:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: Any) -> Callable[..., None]:
            return lambda *arguments, **constants: launched.update({self.name: [*current]})

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    for module in MODULES:
        for kernel in kernels(module):
            monkeypatch.setattr(module, kernel, NotLaunched(kernel))
    return launched


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_launch_is_made_on_the_device_of_its_tensors(name: str, launched: dict[str, list[torch.device]]) -> None:
    LAUNCHES[name]()
    assert launched and set(map(tuple, launched.values())) == {(torch.device("cpu"),)}


def test_every_kernel_is_launched_above(launched: dict[str, list[torch.device]]) -> None:
    for run in LAUNCHES.values():
        run()
    assert launched.keys() == EVERY_KERNEL
