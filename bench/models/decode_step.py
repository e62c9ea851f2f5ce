"""The decode step of a Llama at batch 1: random weights at true size, made on the device, one token after another.

    python -m lowrank.bench.models.decode_step --shape 7b --device cuda --out bench/results

The seven linears of a block in nf4-dq, embedding and head in bfloat16; the step is `DecodeStep`, on a GPU one CUDA
graph, behind a context that is as good as filled. Nothing is loaded or fetched. What the kernels compute is checked by
the kernel bench and what the step computes by tests/model: here only that its logits are finite.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor, nn

from lowrank.kernels import ops
from lowrank.kernels.llama_ops.cuda import CUDA_OPS
from lowrank.kernels.weights.quantized_weight import stored_bytes
from lowrank.layers.gpu_decode import GpuBlocks
from lowrank.layers.lora import LoRALinear
from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.config import PRESETS, ModelConfig
from lowrank.model.llama import TORCH_OPS, KVCache, Llama
from lowrank.model.meta_device import meta_device
from lowrank.model.param_names import is_block_linear
from lowrank.model.static_decode import DecodeStep

from .. import machine, rows
from ..timing import summarize
from .random_hat import wear_random_hat

SHAPES = {
    "7b": PRESETS["7b"],
    "tiny": ModelConfig(dim=256, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=768, vocab_size=1024),
}
FORMAT, CONTEXT, WARM, STEPS = "nf4-dq", 512, 8, 128
BARS = (600.0, 780.0)  # tokens a second of the 7B on one H200: held, and aimed at


def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Llama:
    """Normal weights with deviation 0.02, norms of one; a linear at a time, quantized as it is made."""
    with meta_device():
        model = Llama(config, ops=CUDA_OPS if device.type == "cuda" else TORCH_OPS)
    if device.type == "cuda":
        model.fused_blocks = GpuBlocks()
    generator = torch.Generator(device).manual_seed(0)
    for name, shape in config.parameter_shapes().items():
        if len(shape) == 1:
            w = torch.ones(shape, device=device, dtype=dtype)
        else:
            w = (torch.randn(shape, generator=generator, device=device, dtype=torch.float32) * 0.02).to(dtype)
        path = name.removesuffix(".weight")
        if is_block_linear(name):
            model.set_submodule(path, QuantLinear(ops.to_fast_layout(ops.quantize(w, FORMAT), dtype)))
        else:
            model.get_submodule(path).weight = nn.Parameter(w)
    return model.requires_grad_(False).eval()


def bytes_a_step(model: Llama, context: int) -> int:
    """The bytes that a token reads: all weights but the other rows of the embedding, and the keys and values so far."""
    config, size = model.config, model.output.weight.element_size()
    linears = sum(stored_bytes(module.quantized) for module in model.modules() if isinstance(module, QuantLinear))
    matrices = (matrix for module in model.modules() if isinstance(module, LoRALinear) for matrix in _matrices(module))
    linears += sum(matrix.nbytes for matrix in matrices)
    dense = model.output.weight.numel() * size
    return linears + dense + 2 * config.n_layers * config.n_kv_heads * config.head_dim * context * size


def _matrices(layer: LoRALinear) -> list[Tensor]:
    return [*layer.lora_A.values(), *layer.lora_B.values()]


@torch.inference_mode()
def measure(model: Llama, device: torch.device, context: int, steps: int) -> tuple[list[float], Tensor]:
    """Milliseconds of each step behind `context` tokens, and the logits of the last."""
    weight = model.tok_embeddings.weight
    cache = KVCache(model.config, 1, context + WARM + steps, weight.dtype, device)
    cache.k.normal_(0, 0.1)
    cache.v.normal_(0, 0.1)
    cache.length = context
    step, tokens = DecodeStep(model, cache), torch.ones(1, 1, dtype=torch.int64, device=device)
    taken = []
    for number in range(WARM + steps):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        logits = step(tokens)
        tokens = logits.argmax(-1, keepdim=True)  # as greedy decoding has it
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= WARM:
            taken.append(1e3 * (time.perf_counter() - start))
    return taken, logits


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if a logit is not finite, and then no figure; 2 without the device."""
    parser = argparse.ArgumentParser(
        "python -m lowrank.bench.models.decode_step", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--shape", choices=tuple(SHAPES), default="tiny")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens before the first step")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rank", type=int, default=0, help="of a hat on every linear (default: none)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be timed; no run")
    parser.add_argument(
        "--out", action="append", default=[], type=Path, metavar="FOLDER", help="add the row to a file here"
    )
    args = parser.parse_args(arguments)
    if args.dry_run:
        print(f"decode step {args.shape}, rank {args.rank}: {args.steps} steps behind {args.context} tokens")
        return 0
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"{parser.prog}: no CUDA device here (torch {torch.__version__})", file=sys.stderr)
        return 2
    device = torch.device(args.device, 0) if args.device == "cuda" else torch.device("cpu")
    model = random_model(SHAPES[args.shape], device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    if args.rank:
        wear_random_hat(model, args.rank)
    taken, logits = measure(model, device, args.context, args.steps)
    if not isfinite(logits.abs().max().item()):
        print("wrong: logits are not finite: no figure", file=sys.stderr)
        return 1
    summary = summarize(taken)
    row: rows.Row = {"op": "decode step", "provider": "ours", "shape": args.shape, "format": FORMAT}
    row |= {"rank": args.rank, "context": args.context, **vars(summary), "tokens_a_second": 1e3 / summary.ms}
    row |= {"bytes": bytes_a_step(model, args.context), "device": device.type, "machine": machine.name(device)}
    row |= {"versions": machine.versions(["torch", "triton"]), "commit": machine.commit(), "source": machine.source()}
    row["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    gbs = row["bytes"] / summary.ms / 1e6
    rate = f"{row['tokens_a_second']:.1f} tokens a second, {gbs:.1f} GB/s read"
    print(f"decode step {args.shape}: {summary.ms:.3f} ms, {rate}")
    if args.shape == "7b" and device.type == "cuda":
        for bar in BARS:
            print(f"{'held' if row['tokens_a_second'] >= bar else 'MISSED':7} {bar:g} tokens a second")
    for folder in args.out:
        rows.append(folder / machine.file_name(f"decode {machine.name(device)}"), [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
