"""Arguments that several verbs share, and how their values are read."""

import argparse
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ..layers.prefix_cache import PrefixCache
    from ..model.llama import Llama

CACHES = ("int8", "nf4")  # of `layers.quantized_cache`, likewise
HEADS = ("bf16", "int8", "nf4")  # of `checkpoints.head`, which imports torch
FASTER_DTYPE = "bf16 where the processor multiplies it, else fp32"
WEIGHTS_HELP = "fp32, bf16, fp16, int8, nf4, nf4-dq, fp4, fp4-dq, or dequant:FORMAT"


class AnyOrderParser(argparse.ArgumentParser):
    """Takes what `add_recipe_words` is for also behind options, where argparse would leave it over.

    bare: the value of options that may stand without one, as `--resume` does beside `--resume=auto`; argparse would
    take the next word for it.
    """

    bare: Mapping[str, str] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """argparse's; a parser without such words leaves over what it does."""
        words = sys.argv[1:] if args is None else list(args)
        words = [f"{word}={self.bare[word]}" if word in self.bare else word for word in words]
        found, rest = super().parse_known_args(words, namespace)
        if any(action.dest == "words" for action in self._actions):
            found.words = [*(found.words or []), *(word for word in rest if not word.startswith("-"))]
            rest = [word for word in rest if word.startswith("-")]
        return found, rest


def add_verb(verbs: Any, name: str, help: str, example: str) -> AnyOrderParser:
    """A verb with its help line, an example, and --debug."""
    parser: AnyOrderParser = verbs.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show where an error arose")
    return parser


def add_base(parser: argparse.ArgumentParser, dtype_default: str = "fp32 on a CPU, bf16 on a GPU") -> None:
    """BASE, --device and --dtype."""
    parser.add_argument("base", metavar="BASE", help='folder of weights (Meta or Hugging Face), or "embedded"')
    parser.add_argument("--device", default="cpu", help="where to compute: cpu (default), cuda, cuda:1 ...")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), help=f"compute type ({dtype_default})")


def add_adapters(parser: argparse.ArgumentParser) -> None:
    """--adapter NAME=DIR, as often as wanted."""
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="NAME=DIR", type=named_folder, help="a hat, as PEFT's files"
    )


def add_force(parser: argparse.ArgumentParser) -> None:
    """--force"""
    parser.add_argument(
        "--force",
        action="store_true",
        help="take a hat although it was made for another base, and a base that is loaded with NaN or infinity in it",
    )


def add_recipe_words(parser: argparse.ArgumentParser, metavar: str, help: str) -> None:
    """One word and "table.key=value" overrides, before, between and behind options: `recipe_words` tells them apart."""
    parser.add_argument("words", nargs="*", metavar=metavar, help=help)


def recipe_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """(the word that is no override, or None, and the others) of the words of a command line"""
    named = next((word for word in words if not re.match(r"\w+\.\w+\s*=", word)), None)
    rest = list(words)
    if named is not None:
        rest.remove(named)
    return named, rest


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


def writing_dtype(name: str | None, device: str) -> tuple[str, str]:
    """The compute type of verbs that write texts: --dtype, or the faster one of the device, and the reason for it

    On a CPU bf16 where its instruction set multiplies it, else fp32; the reason is "" for one that was asked for. Verbs
    that print figures have one type on every CPU instead (`checkpoints.load`).
    """
    from ..kernels.cpu import library

    if name is not None:
        return name, ""
    if device != "cpu":
        return "bf16", "a GPU"
    if library.unavailable_reason():
        return "fp32", "no C library"
    known = library.instruction_set()
    return ("bf16", f"{known} multiplies it") if library.has_bfloat16_products() else ("fp32", f"{known} has no bf16")


def tell_dtype(base: str, model: "Llama", reason: str) -> None:
    """Says on standard error how a base is held and computed with, unless the type was asked for."""
    if reason:
        head = f", head {model.source['head']}" if "head" in model.source else ""
        dtype = dtype_name(model)
        print(f"{base}: {model.source['weights']}{head}, computing in {dtype} ({reason}; see --dtype)", file=sys.stderr)


def dtype_name(model: "Llama") -> str:
    """The compute type of a model, as --dtype names it."""
    from ..kernels.weights.quantized_weight import DENSE_DTYPES

    return next(name for name, dtype in DENSE_DTYPES.items() if dtype == model.norm.weight.dtype)


def file_to_write(text: str) -> Path:
    """A file in a folder that is there: a page or rows of long work must not come to nothing by a slip of the hand."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file, {text!r} is a folder")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be in a folder that is there, got {text!r}")
    return path


def add_cache(parser: argparse.ArgumentParser) -> None:
    """--cache, for `use_cache_format`."""
    parser.add_argument("--cache", choices=CACHES, help="keys and values of the past in int8 or NF4 (default: --dtype)")


def add_cache_limit(parser: argparse.ArgumentParser, texts: str) -> None:
    """--cache-limit, for `cache_bytes`; `texts` says whose."""
    parser.add_argument(
        "--cache-limit",
        type=read_bytes,
        metavar="SIZE",
        help=f"keys and values {texts}, such as 8GB (default: 4GiB); what does not fit waits",
    )


def add_prefixes(parser: argparse.ArgumentParser) -> None:
    """--prefixes and --prefix-limit, for `PrefixCache`."""
    parser.add_argument(
        "--prefixes", type=Path, metavar="DIR", help="keep keys and values of prompts here, for later commands"
    )
    parser.add_argument(
        "--prefix-limit",
        type=read_bytes,
        metavar="SIZE",
        help="of kept keys and values of prompts (default: 256MiB in memory, 4GiB in --prefixes)",
    )


def prefix_cache(args: argparse.Namespace) -> "PrefixCache | None":
    """A cache for the beginnings of prompts on a CPU; None on a GPU.  Raises ValueError for a folder that is none."""
    from ..layers.prefix_cache import LIMIT_BYTES, PrefixCache

    if args.device != "cpu":
        if args.prefixes is not None:
            raise ValueError(f"--prefixes is of a CPU, got --device {args.device}")
        return None
    limit, folder = args.prefix_limit, None
    if args.prefixes is not None:
        from ..layers import prefix_folder

        folder = prefix_folder.PrefixFolder(args.prefixes, int(limit or prefix_folder.LIMIT_BYTES))
    return PrefixCache(int(limit or LIMIT_BYTES), folder)


def cache_bytes(args: argparse.Namespace) -> int:
    """--cache-limit in bytes."""
    from ..model.continuous_batch import CACHE_BYTES

    return CACHE_BYTES if args.cache_limit is None else int(args.cache_limit)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """--overwrite, for `refuse_existing`."""
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raises ValueError for something that is there and not to be overwritten."""
    if not overwrite and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise ValueError(f"{out}: is there already: name another, or --overwrite it")


def read_bytes(text: str) -> float:
    """ "80MB" -> 80e6; kB, MB, GB are decimal, KiB, MiB, GiB binary, a bare number is bytes; one at least."""
    units = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "b": 1, "": 1}
    number = text.rstrip("kKmMgGiIbB ")
    unit = text[len(number) :].strip().lower()
    try:
        size = float(number) * units[unit]
    except (ValueError, KeyError):
        size = math.nan
    if not 1 <= size < math.inf:
        raise argparse.ArgumentTypeError(f"must be a size such as 80MB, got {text!r}")
    return size
