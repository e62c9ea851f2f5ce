"""Implementations of NF4 that answer the kit: ours, others' that are installed, and two that many write by themselves.

    reference   our plain torch            lowrank       what `lowrank.quantize` runs here: C on a CPU
    plain       argmin |w / absmax - level| in torch, as most write it
    iq4_nl      blocks of 32 with a float16 scale and ggml's IQ4_NL levels: 4 bits, and no NF4
    bitsandbytes, torchao   as they are installed;   torchao-levels   torchao's code on NF4's levels

An implementation refuses a call by ValueError or RuntimeError, and leaves out what it cannot do by NotImplementedError.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from torch import Tensor

from lowrank.atomic_io import new_folder
from lowrank.extras import need
from lowrank.kernels import ops
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.codebooks import nf4
from lowrank.kernels.weights.quantized_weight import Blockwise4bit, NestedAbsmax

from .cases import DTYPES, Case, cases
from .grade import Verdict, grade
from .kit import write_kit, write_tensor

Outputs = Mapping[str, Tensor]
NEEDED_FOR = "grading it"
IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


class Implementation(Protocol):
    """The three operations that are graded: from the inputs of a case to its outputs, by the names of the kit."""

    def quantize(self, w: Tensor, blocksize: int, nested: bool) -> Outputs:
        """w [N, K] -> codes, absmax; nested: codes, absmax_codes, nested_absmax, offset"""

    def dequantize(self, stored: Outputs, shape: tuple[int, int], blocksize: int, dtype: torch.dtype) -> Tensor:
        """W [N, K] in a dtype"""

    def product(self, x: Tensor, stored: Outputs, shape: tuple[int, int], blocksize: int) -> Tensor:
        """x [M, K] -> x W^T [M, N]"""


def answer(implementation: Implementation, out: str | Path) -> Path:
    """Writes the answers of an implementation to every case that it takes."""
    with new_folder(Path(out)) as aside:
        for case in cases():
            try:
                outputs = _answer(implementation, case)
            except NotImplementedError:
                continue
            except (ValueError, RuntimeError):  # torch has one for shapes, others another
                (aside / f"{case.name}.refused").touch()
                continue
            for name, tensor in outputs.items():
                write_tensor(aside / f"{case.name}.{name}.bin", tensor)
    return Path(out)


def _answer(implementation: Implementation, case: Case) -> Outputs:
    if case.operation == "quantize":
        found = implementation.quantize(case.inputs["w"], case.blocksize, case.nested)
        if any(check.output == "w" for check in case.checks):
            return {"w": implementation.dequantize(found, case.shape, case.blocksize, torch.float32)}
        return found
    stored = {name: tensor for name, tensor in case.inputs.items() if name != "x"}
    if case.operation == "dequantize":
        return {"w": implementation.dequantize(stored, case.shape, case.blocksize, DTYPES[case.dtype])}
    return {"y": implementation.product(case.inputs["x"], stored, case.shape, case.blocksize)}


def blockwise(stored: Outputs, shape: tuple[int, int], blocksize: int) -> Blockwise4bit:
    """Stored outputs as our weight."""
    if "absmax" in stored:
        return Blockwise4bit(stored["codes"], stored["absmax"], "nf4", blocksize, shape)
    nested = NestedAbsmax(stored["absmax_codes"], stored["nested_absmax"], stored["offset"].squeeze())
    return Blockwise4bit(stored["codes"], nested, "nf4", blocksize, shape)


def outputs_of(weight: Any) -> Outputs:
    """The inverse."""
    if isinstance(weight.absmax, Tensor):
        return {"codes": weight.codes, "absmax": weight.absmax}
    nested = weight.absmax
    return {
        "codes": weight.codes,
        "absmax_codes": nested.codes,
        "nested_absmax": nested.nested_absmax,
        "offset": nested.offset.reshape(1),
    }


def verdicts(names: Sequence[str]) -> dict[str, Verdict]:
    """Whose rules hold: the verdict on each of some implementations.  Raises ValueError as `implementation` does."""
    found = {}
    with TemporaryDirectory() as scratch:
        kit = write_kit(Path(scratch, "kit"))
        for name in names:
            found[name] = grade(kit, answer(implementation(name), Path(scratch, name)))
    return found


class Reference:
    """Our plain torch."""

    def quantize(self, w: Tensor, blocksize: int, nested: bool) -> Outputs:
        return outputs_of(reference.quantize_4bit(w, "nf4", blocksize, nested))

    def dequantize(self, stored: Outputs, shape: tuple[int, int], blocksize: int, dtype: torch.dtype) -> Tensor:
        return reference.dequantize_4bit(blockwise(stored, shape, blocksize), dtype)

    def product(self, x: Tensor, stored: Outputs, shape: tuple[int, int], blocksize: int) -> Tensor:
        return reference.linear(x, blockwise(stored, shape, blocksize))


class Lowrank:
    """Whatever the table of kernels chooses on this machine."""

    def quantize(self, w: Tensor, blocksize: int, nested: bool) -> Outputs:
        return outputs_of(ops.quantize(w, "nf4", blocksize=blocksize, double_quant=nested))

    def dequantize(self, stored: Outputs, shape: tuple[int, int], blocksize: int, dtype: torch.dtype) -> Tensor:
        return ops.dequantize(blockwise(stored, shape, blocksize), dtype)

    def product(self, x: Tensor, stored: Outputs, shape: tuple[int, int], blocksize: int) -> Tensor:
        return ops.linear(x, blockwise(stored, shape, blocksize))


class Plain:
    """Torch as most write it: divide by the maximum, argmin over the levels, whole blocks only."""

    def quantize(self, w: Tensor, blocksize: int, nested: bool) -> Outputs:
        if nested or w.numel() % blocksize:
            raise NotImplementedError
        blocks = w.flatten().view(-1, blocksize)
        absmax = blocks.abs().amax(dim=1, keepdim=True)
        codes = (blocks[:, :, None] / absmax[:, :, None] - nf4().to(w.dtype)).abs().argmin(dim=-1).to(torch.uint8)
        pairs = codes.view(-1, 2)
        return {"codes": pairs[:, 0] << 4 | pairs[:, 1], "absmax": absmax.flatten().float()}

    def dequantize(self, stored: Outputs, shape: tuple[int, int], blocksize: int, dtype: torch.dtype) -> Tensor:
        if "absmax" not in stored or torch.Size(shape).numel() % blocksize:
            raise NotImplementedError
        codes = torch.stack([stored["codes"] >> 4, stored["codes"] & 15], dim=1).flatten()
        levels = nf4().to(dtype)[codes.long()].view(-1, blocksize)
        return (levels * stored["absmax"].to(dtype)[:, None]).view(shape)

    def product(self, x: Tensor, stored: Outputs, shape: tuple[int, int], blocksize: int) -> Tensor:
        return x @ self.dequantize(stored, shape, blocksize, x.dtype).T


class Iq4Nl(Plain):
    """Blocks of 32, a float16 scale, 16 levels of eight bits: w = scale * level, nibbles i and i + 16 in a byte."""

    def quantize(self, w: Tensor, blocksize: int, nested: bool) -> Outputs:
        if nested or blocksize != 32:
            raise NotImplementedError
        blocks = w.float().flatten().view(-1, 32)
        levels = torch.tensor(IQ4_NL, dtype=torch.float32)
        at = blocks.abs().argmax(dim=1, keepdim=True)
        scale = (blocks.gather(1, at) / levels[0]).half()  # of the largest, which has the level -127
        codes = (blocks[:, :, None] / scale.float()[:, :, None] - levels).abs().argmin(dim=-1).to(torch.uint8)
        return {"codes": (codes[:, :16] | codes[:, 16:] << 4).flatten(), "absmax": 127 * scale.flatten().float().abs()}

    def dequantize(self, stored: Outputs, shape: tuple[int, int], blocksize: int, dtype: torch.dtype) -> Tensor:
        if "absmax" not in stored or torch.Size(shape).numel() % 32:
            raise NotImplementedError
        codes = stored["codes"].view(-1, 16)
        levels = torch.tensor(IQ4_NL)[torch.cat([codes & 15, codes >> 4], dim=1).long()]
        scales = (stored["absmax"] / 127).half().float().repeat_interleave(blocksize // 32)
        return (levels * scales[: len(levels), None]).view(shape).to(dtype)


class BitsAndBytes:
    """bitsandbytes' functions on a CPU."""

    def __init__(self) -> None:
        need("bitsandbytes", NEEDED_FOR)
        from bitsandbytes import functional

        self.functional: Any = functional

    def quantize(self, w: Tensor, blocksize: int, nested: bool) -> Outputs:
        codes, state = self.functional.quantize_4bit(
            w, blocksize=blocksize, compress_statistics=nested, quant_type="nf4"
        )
        found = {"codes": codes.flatten(), "absmax": state.absmax}
        if not nested:
            return found
        return {
            "codes": codes.flatten(),
            "absmax_codes": state.absmax,
            "nested_absmax": state.state2.absmax,
            "offset": state.offset.reshape(1),
        }

    def _state(self, stored: Outputs, shape: tuple[int, int], blocksize: int, dtype: torch.dtype) -> Any:
        kind = self.functional.QuantState
        nested = "absmax" not in stored
        inner, offset = None, None
        if nested:
            from lowrank.kernels.weights.codebooks import dynamic8

            inner = kind(stored["nested_absmax"], blocksize=256, code=dynamic8(), dtype=torch.float32)
            offset = stored["offset"].squeeze()
        absmax = stored["absmax_codes"] if nested else stored["absmax"]
        return kind(absmax, torch.Size(shape), nf4(), blocksize, "nf4", dtype, offset, inner)

    def dequantize(self, stored: Outputs, shape: tuple[int, int], blocksize: int, dtype: torch.dtype) -> Tensor:
        state = self._state(stored, shape, blocksize, dtype)
        w: Tensor = self.functional.dequantize_4bit(stored["codes"].view(-1, 1), state)
        return w

    def product(self, x: Tensor, stored: Outputs, shape: tuple[int, int], blocksize: int) -> Tensor:
        codes = stored["codes"].view(-1, 1)
        matmul = import_module("bitsandbytes").matmul_4bit  # for an x with gradients: dequantize, then torch
        y: Tensor = matmul(x.requires_grad_(), codes.t(), self._state(stored, shape, blocksize, x.dtype))
        return y.detach()


class TorchAO:
    """torchao's NF4Tensor and linear_nf4, whose maxima are always nested in linear int8: another format than QLoRA's.

    So maxima of the kit stand as they are where its int8 numbers do, with factor 1 and mean 0; all else is its own.
    own_levels  False for NF4's in float32 where W is made of codes, in place of its own, of four decimals
    """

    def __init__(self, own_levels: bool = True) -> None:
        need("torchao", NEEDED_FOR)
        self.own_levels = own_levels
        try:  # 0.18
            module = import_module("torchao.quantization.quantize_.workflows.nf4.nf4_tensor")
        except ModuleNotFoundError:
            module = import_module("torchao.dtypes.nf4tensor")
        self.module: Any = module

    def quantize(self, w: Tensor, blocksize: int, nested: bool) -> Outputs:
        if nested or w.numel() % blocksize:
            raise NotImplementedError
        return {
            "codes": self._from_tensor(w, blocksize).quantized_data.flatten(),
            "absmax": self.module.get_block_absmax(w.flatten(), blocksize).float(),
        }

    def dequantize(self, stored: Outputs, shape: tuple[int, int], blocksize: int, dtype: torch.dtype) -> Tensor:
        w: Tensor = self._weight(stored, shape, blocksize, dtype).get_original_weight()
        return w

    def product(self, x: Tensor, stored: Outputs, shape: tuple[int, int], blocksize: int) -> Tensor:
        y: Tensor = self.module.linear_nf4(x, self._weight(stored, shape, blocksize, x.dtype))
        return y

    def _from_tensor(self, w: Tensor, blocksize: int) -> Any:
        try:
            return self.module.NF4Tensor.from_tensor(w, blocksize, 1)
        except AssertionError as error:
            raise ValueError(str(error)) from None

    def _weight(self, stored: Outputs, shape: tuple[int, int], blocksize: int, dtype: torch.dtype) -> Any:
        """A weight of the kit as its tensor, with the levels that it has in that type."""
        count = torch.Size(shape).numel()
        if "absmax" not in stored or count % blocksize:
            raise NotImplementedError
        own = self._from_tensor(torch.ones(1, blocksize, dtype=dtype), blocksize).nf4
        levels = own if self.own_levels else nf4().to(dtype)
        like = torch.empty(shape, dtype=dtype)
        about = self.module.SubclassTensorArgs(like.size(), like.stride(), 0, dtype, like.device, False)
        absmax, blocks = stored["absmax"], count // blocksize
        scales = (1, absmax, torch.ones(blocks), torch.zeros((), dtype=dtype))
        return self.module.NF4Tensor(about, blocksize, blocks, *scales, stored["codes"], levels)


IMPLEMENTATIONS: dict[str, Callable[[], Implementation]] = {
    "reference": Reference,
    "lowrank": Lowrank,
    "plain": Plain,
    "iq4_nl": Iq4Nl,
    "bitsandbytes": BitsAndBytes,
    "torchao": TorchAO,
    "torchao-levels": partial(TorchAO, own_levels=False),
}


def implementation(name: str) -> Implementation:
    """One by its name.  Raises ValueError for another, and for a package that is missing."""
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {name!r}")
    return IMPLEMENTATIONS[name]()
