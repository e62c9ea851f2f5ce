"""Registers a function as the operator `torch.ops.lowrank.NAME`, which is one node to torch.compile.

`torch.library.custom_op` says the same with less, but imports torch.compile's machinery when such an operator first
runs: 1.4 seconds and 900 modules that neither training nor a command line needs. `torch.library.register_fake` looks up
the line of source that it is called from, in all modules that are loaded: a tenth of a second for ours. A kernel for
tensors on the meta device says the same.
"""

from collections.abc import Callable
from typing import Any

import torch

BODIES: dict[str, Callable[..., Any]] = {}  # by name, for a count of what they launch on tensors that have no numbers


def operator(name: str, fake: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function the operator lowrank::NAME on every device, its schema read off its annotations.

    The function may write to nothing that it is given and may return no view of it. `fake` takes the same arguments and
    returns empty tensors like the results. A gradient is added by `torch.library.register_autograd`.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        BODIES[name] = function
        torch.library.define(f"lowrank::{name}", torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(f"lowrank::{name}", "CompositeExplicitAutograd", function)
        torch.library.impl(f"lowrank::{name}", "Meta", fake)
        registered: Callable[..., Any] = getattr(torch.ops.lowrank, name).default
        return registered

    return register
