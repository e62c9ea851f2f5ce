"""A model's blocks as the C library takes them for a token of a text, or a few, and when it may."""

from torch import Tensor, nn

from ..kernels.cpu.decode_step import Blocks, Sizes
from ..kernels.cpu.library import DTYPES
from ..kernels.dispatch import run
from ..kernels.llama_ops.cpu import CPU_OPS
from ..model.llama import KVCache, Llama, is_hooked
from .adapter_rows import AdapterRows
from .block_weights import block_weights, is_as_it_came, is_plain_inference, norm_weight


def described(model: Llama, x: Tensor) -> Blocks | None:
    """The blocks and the norm behind them; None if one of their modules, or of their products with x, is not for C."""
    norm = norm_weight(model.norm, model, x, CPU_OPS)
    blocks = block_weights(model, x, CPU_OPS)
    if norm is None or blocks is None:
        return None
    if not run.can_run_in_one_call(x, [linear for block in blocks for linear in block.linears]):
        return None
    return Blocks(blocks, norm)


def is_decoding(x: Tensor, cache: KVCache) -> bool:
    """True if x is on a CPU, in a dtype that C takes, and nobody but the blocks has a part in it."""
    return x.is_cpu and x.dtype in DTYPES and x.dtype == cache.k.dtype and is_plain_inference(x)


def has_usual_ends(model: Llama) -> bool:
    """True if the embedding looks rows up, and nobody is told of tokens that go in or logits that come out."""
    embedding = model.tok_embeddings
    is_usual = is_as_it_came(embedding, nn.Embedding) or is_as_it_came(embedding, AdapterRows)
    return is_usual and not is_hooked(model.output)


def sizes_of(model: Llama, x: Tensor) -> Sizes:
    config = model.config
    return Sizes(
        batch=x.shape[0],
        tokens=x.shape[1],
        dim=config.dim,
        hidden_dim=config.hidden_dim,
        heads=config.n_heads,
        kv_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        eps=config.norm_eps,
        interleaved=config.rope_layout == "interleaved",
    )
