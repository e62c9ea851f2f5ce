"""The state that a model is in while it trains, for a `with` block."""

from lowrank.adapters import lora_layers
from lowrank.kernels.cpu import library
from lowrank.kernels.llama_ops.cpu import CPU_OPS
from lowrank.layers.recompute import SelectiveOps, use_ops
from lowrank.model.llama import Llama


class PreparedModel:
    """A model as it trains: on a CPU with operations that keep less, and with what is to be computed again."""

    def __init__(self, model: Llama, recompute: str) -> None:
        self._model, self._recompute = model, recompute
        self._before = model.norm.ops

    def __enter__(self) -> None:
        self._model.gradient_checkpointing = self._recompute == "full"
        ops = self._before
        if self._model.tok_embeddings.weight.device.type == "cpu":
            ops = CPU_OPS
            library.keep_freed_memory(True)  # every step asks for the same again
        if self._recompute == "selective":
            ops = SelectiveOps(ops)
        use_ops(self._model, ops)
        self._model.train()

    def __exit__(self, *_: object) -> None:
        self._model.eval()
        self._model.gradient_checkpointing = False
        use_ops(self._model, self._before)
        for layer in lora_layers(self._model).values():
            layer.dropout_stream = None
        library.keep_freed_memory(False)
