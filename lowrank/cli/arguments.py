"""Arguments that several verbs share, and how their values are read."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

WEIGHTS_HELP = "fp32, bf16, fp16, int8, nf4, nf4-dq, fp4, fp4-dq, or dequant:FORMAT"


def add_verb(verbs: Any, name: str, help: str, example: str) -> argparse.ArgumentParser:
    """A verb with its help line, an example, and --debug."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show where an error arose")
    return parser


def add_base(parser: argparse.ArgumentParser) -> None:
    """BASE, --device and --dtype."""
    parser.add_argument("base", metavar="BASE", help='folder of weights (Meta or Hugging Face), or "embedded"')
    parser.add_argument("--device", default="cpu", help="where to compute: cpu (default), cuda, cuda:1 ...")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), help="compute type (fp32 on a CPU, bf16 on a GPU)")


def add_adapters(parser: argparse.ArgumentParser) -> None:
    """--adapter NAME=DIR, as often as wanted."""
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="NAME=DIR", type=named_folder, help="a hat, as PEFT's files"
    )


def add_force(parser: argparse.ArgumentParser) -> None:
    """--force"""
    parser.add_argument("--force", action="store_true", help="take a hat although it was made for another base")


def named_folder(text: str) -> tuple[str, Path]:
    """ "finance=runs/hat" -> ("finance", Path("runs/hat"))"""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"must be NAME=DIR, got {text!r}")
    return name, Path(folder)


def compute_dtype(name: str | None) -> "torch.dtype | None":
    """The torch type of --dtype; None leaves the choice to the loader."""
    from ..kernels.weights.quantized_weight import DENSE_DTYPES

    return None if name is None else DENSE_DTYPES[name]


def read_bytes(text: str) -> float:
    """ "80MB" -> 80e6; kB, MB, GB are decimal, KiB, MiB, GiB binary, a bare number is bytes."""
    units = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "b": 1, "": 1}
    number = text.rstrip("kKmMgGiIbB ")
    unit = text[len(number) :].strip().lower()
    try:
        return float(number) * units[unit]
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"must be a size such as 80MB, got {text!r}") from None
