"""LoRA, 4-bit NF4 and Llama 2, written out by hand in torch.

    model = lowrank.load("llama-2-7b", weights="nf4-dq")
    lowrank.add_adapter(model, "finance", rank=8, alpha=16)
    lowrank.use_adapter(model, "finance")
    logits = model(tokens)

A base and its tokenizer: load, load_tokenizer, Tokenizer, quantize. Hats (adapters): add_adapter, use_adapter,
using_adapter, drop_adapter, load_adapter, save_adapter. Text: generate, and Grounding and Vocabulary, which keep its
figures to those of a record. X-rays: `lowrank.inspect`, a function for each. `import lowrank` imports neither torch nor
triton: a name is imported at its first use. It sets what torch's libraries on a CPU read from the environment
(`cpu_runtime`), where the caller has not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import cpu_runtime

if TYPE_CHECKING:
    from .adapters import add_adapter, drop_adapter, use_adapter, using_adapter
    from .adapters.files import load_adapter, save_adapter
    from .checkpoints.load import load, load_tokenizer
    from .grounding.decoding import Grounding
    from .grounding.vocabulary import Vocabulary
    from .layers.quant_linear import quantize
    from .model.generate import generate
    from .model.tokenizer import Tokenizer

__version__ = "0.1.0"

cpu_runtime.set_defaults()

__all__ = [
    "Grounding",
    "Tokenizer",
    "Vocabulary",
    "add_adapter",
    "drop_adapter",
    "generate",
    "load",
    "load_adapter",
    "load_tokenizer",
    "quantize",
    "save_adapter",
    "use_adapter",
    "using_adapter",
]

_ROOMS = {
    "Grounding": "grounding.decoding",
    "Tokenizer": "model.tokenizer",
    "Vocabulary": "grounding.vocabulary",
    "add_adapter": "adapters",
    "drop_adapter": "adapters",
    "generate": "model.generate",
    "load": "checkpoints.load",
    "load_adapter": "adapters.files",
    "load_tokenizer": "checkpoints.load",
    "quantize": "layers.quant_linear",
    "save_adapter": "adapters.files",
    "use_adapter": "adapters",
    "using_adapter": "adapters",
}


def __dir__() -> list[str]:
    """The public names, whether imported yet or not: for tab completion and `help(lowrank)`."""
    return sorted([*__all__, "inspect", "__doc__", "__file__", "__name__", "__path__", "__version__"])


def __getattr__(name: str) -> Any:
    if name == "inspect":
        return import_module(".inspect", __name__)
    if name not in _ROOMS:
        raise AttributeError(f"module 'lowrank' has no attribute {name!r}")
    value = getattr(import_module(f".{_ROOMS[name]}", __name__), name)
    globals()[name] = value
    return value
