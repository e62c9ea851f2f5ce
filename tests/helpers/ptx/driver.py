"""A Triton driver without a GPU: kernels are specialised and compiled as for one, and their PTX is run by `block`.

`install(90)` before the first launch of a process; tensors are on the CPU. Nothing is assembled: ptxas is not run.
"""

import ctypes
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.compiler.compiler import CompiledKernel
from triton.runtime.driver import driver

from ptx.block import Block
from ptx.memory import GlobalMemory
from ptx.program import Program

SHARED_MOST = {8: 166_912, 9: 232_448}  # bytes a block may have, by the first digit of the compute capability


class NoGpu(DriverBase):
    """Answers all that Triton asks of a driver before it compiles and launches."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        raise NotImplementedError("the emulator is no torch device")

    @staticmethod
    def is_active() -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_benchmarker(self) -> Any:
        raise NotImplementedError("the emulator times nothing")

    def get_empty_cache_for_benchmark(self) -> Any:
        raise NotImplementedError("the emulator times nothing")

    def clear_cache(self, cache: Any) -> None:
        pass


class Counts:
    """Launches by kernel, and instructions and bytes by kind, since the driver was installed."""

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self.instructions: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.traffic: Counter[str] = Counter()  # by kernel, as `GlobalMemory.traffic` has it


COUNTS = Counts()
_programs: dict[int, tuple[Program, CompiledKernel]] = {}


Place = tuple[int, int, int]
arrange: Callable[[list[Place]], list[Place]] | None = None  # the order in which programs run, in place of their own


def install(capability: int, is_run: Callable[[int, int, int], bool] | None = None) -> None:
    """From here on a launch compiles for sm_`capability` and runs its PTX, all programs or those `is_run` takes."""
    driver.set_active(NoGpu(capability))

    def without_assembly(*given: Any) -> tuple[str, str]:
        """Given a backend and its stages, leaves the last one out; without arguments, a key for Triton's cache."""
        if given:
            given[1]["cubin"] = lambda source, metadata: b""
        return "no assembly", "no assembly"

    knobs.runtime.add_stages_inspection_hook = without_assembly

    def launcher(kernel: CompiledKernel) -> Callable[..., None]:
        def launch(x: int, y: int, z: int, *rest: Any) -> None:
            arguments = rest[6:]  # behind stream, function, metadata twice, and two hooks
            most = SHARED_MOST[capability // 10]
            assert kernel.metadata.shared <= most, f"{kernel.name}: {kernel.metadata.shared} bytes of shared memory"
            COUNTS.launches[kernel.name] += 1
            _run(kernel, (x, y, z), arguments, is_run)

        return launch

    CompiledKernel.run = property(launcher)  # type: ignore[method-assign, assignment]
    CompiledKernel.launch_metadata = lambda *arguments: None  # type: ignore[method-assign]
    CompiledKernel._init_handles = lambda kernel: None  # type: ignore[method-assign]


def _run(
    kernel: CompiledKernel,
    grid: tuple[int, int, int],
    arguments: tuple[Any, ...],
    is_run: Callable[[int, int, int], bool] | None,
) -> None:
    if id(kernel) not in _programs:
        _programs[id(kernel)] = (Program(kernel.asm["ptx"]), kernel)  # the kernel is kept, so that its id stays its own
    program = _programs[id(kernel)][0]
    bound = dict(zip(kernel.src.fn.arg_names, arguments, strict=True))
    given = {name: bound[name] for name, kind in kernel.src.signature.items() if kind != "constexpr"}
    places = [(x, y, z) for z in range(grid[2]) for y in range(grid[1]) for x in range(grid[0])]
    places = places if arrange is None else arrange(places)
    wanted = [place for place in places if is_run is None or is_run(*place)]
    run_program(program, kernel.name, given, grid, wanted, kernel.metadata.shared)


def run_program(
    program: Program,
    name: str,
    given: dict[str, Any],
    grid: tuple[int, int, int],
    places: list[Place],
    shared: int,
    shared_start: int = 0,
) -> None:
    """Runs the programs at `places` of a grid, with these arguments by name, and counts.

    shared, shared_start  bytes of shared memory, and where it begins
    """
    memory = GlobalMemory()
    values = []
    for argument, value in given.items():
        if isinstance(value, Tensor):
            memory.add(value.untyped_storage().data_ptr(), _bytes(value), argument)
            values.append(value.data_ptr())
        elif isinstance(value, float):
            values.append(int(np.float32(value).view(np.uint32)))
        else:
            values.append(int(value))
    values += [0] * (len(program.parameters) - len(values))  # scratch that these kernels do not have
    for place in places:
        block = Block(program, memory, values, grid, place, shared, shared_start)
        block.run()
        COUNTS.instructions.update(block.counts)
    COUNTS.bytes.update(memory.counts)
    COUNTS.traffic[name] += memory.traffic()


def _bytes(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """All of a tensor's storage, where it lies."""
    storage = tensor.untyped_storage()
    if not storage.nbytes():
        return np.zeros(0, np.uint8)
    return np.frombuffer((ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr()), np.uint8)
