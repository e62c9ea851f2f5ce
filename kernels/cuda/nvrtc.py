"""NVRTC, NVIDIA's compiler of CUDA C as a library, which comes with torch: no toolkit and no GPU are needed.

`torch.cuda._compile_kernel` calls it too, but only where a whole CUDA toolkit is installed, for the toolkit's headers,
which our kernels do not include.
"""

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path

MAJOR_VERSIONS = (13, 12)  # of CUDA, the newest first


def unavailable_reason() -> str:
    """The reason why nothing can be compiled here, "" if it can."""
    return "" if _library() is not None else "NVRTC, which comes with torch for CUDA, is not installed"


def version() -> str:
    """The version of CUDA that the compiler is of, as "13.0"."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_loaded().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def to_machine_code(source: str, capability: int, constants: dict[str, int]) -> bytes:
    """The cubin of CUDA C for GPUs of a compute capability (90 for 9.0), with macros defined.

    Raises RuntimeError with what the compiler says if it does not take the source, and where `unavailable_reason`.
    """
    return _compile(source, f"sm_{capability}", constants, "CUBIN")


def to_ptx(source: str, capability: int, constants: dict[str, int]) -> str:
    """The same as PTX, which is not yet for one GPU alone."""
    return _compile(source, f"compute_{capability}", constants, "PTX").decode().rstrip("\0")


def _compile(source: str, architecture: str, constants: dict[str, int], kind: str) -> bytes:
    library = _loaded()
    given = [f"--gpu-architecture={architecture}", "--std=c++17"]
    given += [f"-D{name}={value}" for name, value in constants.items()]
    options = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
    program = ctypes.c_void_p()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None))
    try:
        if library.nvrtcCompileProgram(program, len(given), options):
            raise RuntimeError(f"NVRTC: {_text(program, 'ProgramLog').decode().rstrip()}")
        return _text(program, kind)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(program: ctypes.c_void_p, kind: str) -> bytes:
    """A text that the library has of a program: its ProgramLog, its PTX, its CUBIN."""
    size = ctypes.c_size_t()
    _check(getattr(_loaded(), f"nvrtcGet{kind}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(_loaded(), f"nvrtcGet{kind}")(program, text))
    return text.raw


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC: error {status}")


def _loaded() -> ctypes.CDLL:
    if (library := _library()) is None:
        raise RuntimeError(unavailable_reason())
    return library


@cache
def _library() -> ctypes.CDLL | None:
    """The library in NVIDIA's package, which is where torch finds its own, or else that of the system; None without."""
    package = find_spec("nvidia")
    folders = [Path(folder) for folder in (package.submodule_search_locations or ())] if package else []
    for version in MAJOR_VERSIONS:
        for path in (found for folder in folders for found in sorted(folder.glob(f"*/lib/libnvrtc.so.{version}"))):
            for builtins in path.parent.glob(f"libnvrtc-builtins.so.{version}*"):  # asked for by name, without a path
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(path))
    for version in MAJOR_VERSIONS:
        try:
            return ctypes.CDLL(f"libnvrtc.so.{version}")
        except OSError:
            continue
    return None
