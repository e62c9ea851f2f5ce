"""lowrank parity"""

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text_table import table
from .arguments import WEIGHTS_HELP, add_base, add_verb, compute_dtype
from .flags import flags_in_errors

if TYPE_CHECKING:
    from torch import Tensor

    from ..model.llama import Llama


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "parity",
        "the error of our outputs against stored ones, or against transformers, peft and bitsandbytes",
        "lowrank parity meta-tiny-mha meta-tiny-mha/reference.safetensors --weights fp32\n"
        "  lowrank parity --live llama-2-7b-hf --weights nf4 --adapter runs/hat",
    )
    add_base(parser)
    parser.add_argument(
        "reference", metavar="REFERENCE.safetensors", type=Path, nargs="?", help="tokens and what they should give"
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="instead of a file: run transformers, peft and bitsandbytes on the same base, in float32 (which takes "
        "four bytes a weight), and compare codes, hidden states, logits, greedy tokens, loss and gradients",
    )
    parser.add_argument("--weights", help=f"{WEIGHTS_HELP} (default: nf4-dq, or as stored)")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="a hat to wear")
    parser.add_argument(
        "--key", default="logits", help="what to compare: a tensor of logits (default), greedy, or train_loss"
    )
    parser.add_argument("--prefill", type=int, help="pass this many tokens, then one at a time through the cache")
    parser.add_argument(
        "--tolerance", type=float, help="largest error that passes (2e-5; 1e-4 relative for train_loss)"
    )
    parser.add_argument("--save-logits", type=Path, metavar="FILE", help="write ours as safetensors")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints how far we are from the reference; exit status 1 if that is too far."""
    if args.live == (args.reference is not None):
        raise ValueError("parity needs REFERENCE.safetensors or --live, one of the two")
    return _run_live(args) if args.live else _run_stored(args)


def _run_live(args: argparse.Namespace) -> int:
    from ..checkpoints.embedded import base_folder
    from ..eval.parity.live import live_parity

    for option, default in (("key", "logits"), ("prefill", None), ("tolerance", None), ("save_logits", None)):
        if getattr(args, option) != default:
            raise ValueError(f"--{option.replace('_', '-')} goes with a stored reference, not with --live")
    if args.dtype not in (None, "fp32"):
        raise ValueError(f"--live compares in fp32, got --dtype {args.dtype}")
    with flags_in_errors({"live parity": "--live"}):
        figures = live_parity(base_folder(args.base), args.weights, args.adapter, device=args.device)
    passed = all(figure.has_passed for figure in figures)
    conformance = {} if passed or "nf4" not in (args.weights or "nf4") else _rules_of_both()
    if args.json:
        rows = [
            {
                **asdict(figure),
                "error": figure.error if math.isfinite(figure.error) else None,
                "passed": figure.has_passed,
            }
            for figure in figures
        ]
        result = {"weights": args.weights, "passed": passed, "figures": rows, "conformance": conformance}
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        cells = [
            (
                figure.what,
                f"{figure.error:.2e}",
                f"{figure.bound:.0e}",
                "" if figure.has_passed else "OVER",
                figure.where,
            )
            for figure in figures
        ]
        print(table(cells, ("compared", "error", "bound", "", "where it is largest")))
        for name, verdict in conformance.items():
            print(f"{name} {verdict}")
    return 0 if passed else 1


def _rules_of_both() -> dict[str, str]:
    """The rules of NF4 that ours and theirs break: whose fault a difference in 4 bits is."""
    from ..eval.conformance.implementations import verdicts

    return {name: verdict.sentence() for name, verdict in verdicts(("lowrank", "bitsandbytes")).items()}


def _run_stored(args: argparse.Namespace) -> int:
    from ..adapters import use_adapter
    from ..adapters.files import load_adapter
    from ..checkpoints.embedded import base_folder
    from ..checkpoints.load import load

    stored = _read(args.reference, args.key)
    model = load(base_folder(args.base), args.weights, compute_dtype(args.dtype), args.device)
    if args.adapter:
        load_adapter(model, "reference", args.adapter, trainable=args.key == "train_loss")
        use_adapter(model, "reference")
    if args.key == "greedy":
        figures = _greedy(model, stored, args.prefill or 16)
    elif args.key == "train_loss":
        if not args.adapter:
            raise ValueError("--key train_loss needs --adapter, the hat from which training starts")
        figures = _training_curve(model, stored)
    else:
        figures = _logits(model, stored, args)
    tolerance = args.tolerance if args.tolerance is not None else (1e-4 if args.key == "train_loss" else 2e-5)
    passed = figures["error"] <= tolerance
    figures |= {"key": args.key, "weights": model.source["weights"], "tolerance": tolerance, "passed": passed}
    if args.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:20} {value}" for name, value in figures.items()))
    return 0 if passed else 1


def _read(path: Path, key: str) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from None
    needed = {"greedy": ("greedy",), "train_loss": ("train_tokens", "train_labels", "train_loss", "train_grad_norm")}
    for name in needed.get(key, ("tokens", key)):
        if name not in stored:
            raise ValueError(f"{path}: no tensor {name!r}; it holds {', '.join(sorted(stored))}")
    return stored


def _logits(model: "Llama", stored: "dict[str, Tensor]", args: argparse.Namespace) -> dict[str, Any]:
    from safetensors.torch import save_file

    from ..atomic_io import new_file
    from ..eval.parity.stored import difference, logits

    ours = logits(model, stored["tokens"], args.prefill)
    if args.save_logits:
        with new_file(args.save_logits) as aside:
            save_file({"tokens": stored["tokens"], "logits": ours}, aside)
    found = asdict(difference(ours, stored[args.key]))
    return {"error": found.pop("largest"), **found}


def _greedy(model: "Llama", stored: "dict[str, Tensor]", prompt_length: int) -> dict[str, Any]:
    """The share of greedy tokens that differ, with the prompt's tokens given."""
    from ..model.generate import generate_tokens

    expected = stored["greedy"][:, prompt_length:]
    prompts = stored["greedy"][:, :prompt_length].tolist()
    steps = list(generate_tokens(model, prompts, max_new_tokens=expected.shape[1]))
    ours = expected.new_tensor(steps).T
    return {"error": (ours != expected).float().mean().item(), "tokens": expected.numel()}


def _training_curve(model: "Llama", stored: "dict[str, Tensor]") -> dict[str, Any]:
    """QLoRA steps as the reference took them: AdamW at 2e-3, clipped at 0.3, one batch a step; relative errors."""
    from ..adapters import adapter_parameters
    from ..kernels.llama_ops.linear_cross_entropy import linear_cross_entropy
    from ..model.loss import next_token_loss
    from ..train.optim import AdamW, clip_gradients

    parameters = adapter_parameters(model, "reference")
    optimizer = AdamW(parameters)
    loss_error = norm_error = 0.0
    for step, (tokens, labels) in enumerate(zip(stored["train_tokens"], stored["train_labels"], strict=True)):
        nats, supervised = next_token_loss(model, tokens, labels, head_loss=linear_cross_entropy)
        loss = nats / supervised
        loss.backward()
        norm = clip_gradients(parameters.values(), 0.3)
        optimizer.step(2e-3)
        loss_error = max(loss_error, abs(loss.item() / stored["train_loss"][step].item() - 1))
        norm_error = max(norm_error, abs(norm.item() / stored["train_grad_norm"][step].item() - 1))
    return {"error": loss_error, "grad_norm_error": norm_error, "steps": optimizer.steps}
