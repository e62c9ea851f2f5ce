"""A model as it was when keys and values were computed: whether it still is so, and a hash for other processes."""

import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .. import __version__
from ..atomic_io import sha256_of
from ..kernels.cpu import library
from ..model.llama import Llama, is_hooked
from ..model.tensor_file import tensor_bytes
from .adapter_rows import AdapterRows
from .adapter_selection import PerRow, SelectingModule, selection_of

ActiveAdapters = tuple[tuple[tuple[str, float, object], ...], ...]  # of each layer: name, weight, config

# Lines of /proc/cpuinfo, and the beginnings of environment variables, by which a vendor's library chooses its products.
PROCESSOR = ("vendor_id", "cpu family", "model", "flags", "Features")
CHOOSING = ("MKL_", "DNNL_", "ONEDNN_", "ATEN_CPU_CAPABILITY")


class ModelState:
    """Every tensor of a model as it was, the mode of its modules, and the threads that share its products.

    Numbers that change behind torch's back (`.data`) are not seen.
    """

    def __init__(self, model: Llama) -> None:
        self._model = ref(model)
        self._tensors = [(ref(tensor), *_marks(tensor)) for tensor in _tensors(model)]
        self._settings = _settings(model)

    def is_unchanged(self, model: Llama) -> bool:
        """True if it is the same model, and nothing in it has changed."""
        now = _tensors(model)
        return (
            self._model() is model
            and self._settings == _settings(model)
            and len(now) == len(self._tensors)
            and all(
                kept() is tensor and marks == list(_marks(tensor))
                for (kept, *marks), tensor in zip(self._tensors, now, strict=True)
            )
        )


def _tensors(model: Llama) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _marks(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def _settings(model: Llama) -> tuple[Any, ...]:
    return model.training, model.config, model.fused_blocks is None, torch.get_num_threads()


def active_adapters(model: Llama) -> ActiveAdapters | None:
    """The adapters of each layer in this context; None where a hook is to see every token, or rows have their own."""
    if torch.is_grad_enabled() or _has_any_global_hook():
        return None
    active: list[tuple[tuple[str, float, object], ...]] = []
    for module in model.modules():
        if is_hooked(module):
            return None
        if isinstance(module, SelectingModule):
            selection = selection_of(module)
            if isinstance(selection, PerRow):
                return None
            configs = getattr(module, "configs", {})
            active.append(tuple((name, weight, configs.get(name)) for name, weight in selection))
    return tuple(active)


def sha256_of_state(model: Llama, active: ActiveAdapters) -> str:
    """A hash of all that the bits of keys and values depend on, besides the tokens and how they are read

    It is over every tensor of the model as it is held (so over weights, their format and the compute type), the
    adapters that are active, the versions of torch and of this package with its C library, and the processor: a
    vendor's library rounds by it. Reading 1 GB takes half a second.
    """
    total = hashlib.sha256()
    threads = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled
    for part in (__version__, torch.__version__, _library(), _processor(), threads, _settings(model), active):
        total.update(repr(part).encode())
    digests: dict[tuple[int, int], bytes] = {}  # a tied head is the embedding again
    for name, tensor in sorted(_tensors_in_use(model, active)):
        place = tensor.data_ptr(), tensor.nbytes
        if place not in digests:
            digests[place] = hashlib.sha256(tensor_bytes(tensor)).digest()
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + digests[place])
    return total.hexdigest()


def _tensors_in_use(model: Llama, active: ActiveAdapters) -> list[tuple[str, Tensor]]:
    """The tensors of a model by name, without those of adapters that are not active; indices of rows among them."""
    names = {name for selection in active for name, *_ in selection}
    idle, indices = set(), []
    for path, module in model.named_modules():
        if not isinstance(module, SelectingModule):
            continue
        for kind, held in module.named_children():
            if isinstance(held, nn.ParameterDict):
                idle |= {f"{path}.{kind}.{name}" for name in held if name not in names}
        if isinstance(module, AdapterRows):
            indices += [(f"{path}.index.{name}", index) for name, index in module.index.items() if name in names]
    state = [(name, tensor) for name, tensor in model.state_dict().items() if name not in idle]
    return state + [(name, index) for name, index in indices if index is not None]


def _library() -> tuple[str, ...]:
    """The compiled library and the instruction set in use."""
    path = library.file()
    return () if path is None else (sha256_of(path), library.instruction_set())


def _processor() -> tuple[object, ...]:
    known, cpuinfo = platform.machine(), Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").partition("\n\n")[0].splitlines() if cpuinfo.exists() else []
    told = tuple(line for line in lines if line.partition(":")[0].strip() in PROCESSOR)
    chosen = tuple(sorted(item for item in os.environ.items() if item[0].startswith(CHOOSING)))
    return sys.platform, known, told, chosen
