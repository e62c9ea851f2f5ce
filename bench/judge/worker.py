"""The submission's own process: loads it, calls it when it is told to, and says what came back.

Nothing here is trusted once the submission is loaded, which can patch this module as it likes: the judge believes the
bytes of the arena, its own clock, and what the system tells of this process. What is said here only names a fault.
"""

import ctypes
import importlib.util
import json
import mmap
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

SYMBOL = "nf4_linear"  # of a shared library, see nf4_linear.h
FUNCTION = "custom_kernel"  # of a file in Python
CLOCKS = ("perf_counter_ns", "perf_counter", "monotonic_ns", "monotonic", "time_ns", "time")
MESSAGE = 65536  # bytes, at most
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)


class Kernel(Protocol):
    """A submission that is loaded."""

    def lay_out(self, memory: mmap.mmap, parts: list[Any]) -> None:
        """Tensors of a case at their places in the arena."""

    def call(self) -> str:
        """Computes y; returns what is wrong with the form of the answer, or nothing."""

    def again(self) -> None:
        """Copies the answer of the last call once more, as it is now."""


class PythonKernel:
    """A file with `custom_kernel(data)`."""

    def __init__(self, path: Path, threads: int, task: str) -> None:
        torch.set_num_threads(threads)
        sys.path[:0] = [str(path.parent), task]
        spec = importlib.util.spec_from_file_location("submission", path)
        assert spec and spec.loader, path
        module = importlib.util.module_from_spec(spec)
        sys.modules["submission"] = module
        spec.loader.exec_module(module)
        self._function = getattr(module, FUNCTION)

    def lay_out(self, memory: mmap.mmap, parts: list[Any]) -> None:
        self._data = tuple(_tensor(memory, part) if isinstance(part, dict) else part for part in parts)
        self._y = _tensor(memory, parts[-1])  # not that of the data, which a submission may resize

    def call(self) -> str:
        answer = self._function(self._data)
        self._answer = answer
        if fault := _form_fault(answer, self._y):
            return fault
        self.again()
        return ""

    def again(self) -> None:
        if isinstance(self._answer, Tensor) and self._answer.data_ptr() != self._y.data_ptr():
            self._y.copy_(self._answer)


class LibraryKernel:
    """A shared library with the function of nf4_linear.h."""

    def __init__(self, path: Path, threads: int) -> None:
        self._function, self._threads = getattr(ctypes.CDLL(str(path)), SYMBOL), threads
        self._function.restype = None

    def lay_out(self, memory: mmap.mmap, parts: list[Any]) -> None:
        x, codes, absmax, codebook, blocksize, y = parts
        self._memory = ctypes.c_char.from_buffer(memory)  # which is mapped as long as this is held
        start = ctypes.addressof(self._memory)
        pointers = [ctypes.c_void_p(start + part["at"]) for part in (codes, absmax, codebook, x, y)]
        sizes = [ctypes.c_int64(size) for size in (*y["shape"], x["shape"][1], blocksize)]
        self._arguments = (*pointers, *sizes, ctypes.c_int(self._threads))

    def call(self) -> str:
        self._function(*self._arguments)
        return ""

    def again(self) -> None:
        """The library writes into y itself."""


def run(link: socket.socket, order: dict[str, Any]) -> NoReturn:
    """Loads the submission of the order, then does what it is told until the judge hangs up; ends the process."""
    sys.excepthook = lambda kind, error, trace: _tell_raised(link, kind, error, trace)
    try:
        _serve(link, order)
    except SystemExit as ended:
        _tell_raised(link, SystemExit, ended, None)
    os._exit(0)


def _serve(link: socket.socket, order: dict[str, Any]) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, 9)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # a process that it starts stays below this one, where the judge looks
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    path = Path(order["submission"])
    is_python = path.suffix == ".py"
    try:
        kernel: Kernel = (
            PythonKernel(path, order["threads"], order["task"]) if is_python else LibraryKernel(path, order["threads"])
        )
    except AttributeError as error:
        if (FUNCTION if is_python else SYMBOL) not in str(error):
            raise
        _tell(link, {"absent": FUNCTION if is_python else SYMBOL})
        return
    _tell(link, {"nonce": order["nonce"]})
    while True:
        text, descriptors, _, _ = socket.recv_fds(link, MESSAGE, 1)
        if not text:
            return
        _tell(link, _done(kernel, json.loads(text), descriptors))


def _done(kernel: Kernel, told: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
    """Does one thing; returns the answer."""
    answer: dict[str, Any] = {"nonce": told["nonce"]}
    if told["do"] == "call":
        answer["fault"] = kernel.call()
    elif told["do"] == "lay out":
        size = os.fstat(descriptors[0]).st_size
        memory = mmap.mmap(descriptors[0], size, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
        os.close(descriptors[0])
        kernel.lay_out(memory, told["parts"])
    elif told["do"] == "again":
        kernel.again()
    elif told["do"] == "tell the time":
        answer["clocks"] = {name: getattr(time, name)() for name in CLOCKS}
    return answer


def _tensor(memory: mmap.mmap, part: dict[str, Any]) -> Tensor:
    count = torch.Size(part["shape"]).numel()
    flat = torch.frombuffer(memory, dtype=getattr(torch, part["dtype"]), count=count, offset=part["at"])
    return flat.view(part["shape"])


def _form_fault(answer: object, y: Tensor) -> str:
    """The kind of an answer that is no plain tensor like y; nothing of one that is."""
    if type(answer) is not Tensor:
        return f"returns a {type(answer).__name__}"
    if answer.shape != y.shape or answer.dtype != y.dtype:
        return f"returns {answer.dtype} {tuple(answer.shape)}"
    if answer.layout != torch.strided or answer.device.type != "cpu":
        return f"returns a tensor that is {answer.layout} on {answer.device}"
    return ""


def _tell(link: socket.socket, answer: dict[str, Any]) -> None:
    link.send(json.dumps(answer).encode())


def _tell_raised(link: socket.socket, kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    _tell(link, {"raised": " ".join(f"{kind.__name__}: {error}".split())[:300]})
