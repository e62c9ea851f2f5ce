"""lowrank data show"""

import argparse
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.encoding.template import DEFAULT, NAMES, template_entry
from ..arguments import add_verb, file_to_write

if TYPE_CHECKING:
    from ...data.encoding.batching import Example
    from ...data.encoding.token_view import Shown, Token, Totals
    from ...model.tokenizer import Tokenizer

MAX_TOKENS = 1024
SUPERVISED = "\x1b[4;32m{}\x1b[0m"  # underlined, green


def add(kinds: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        kinds,
        "show",
        "which tokens of a data set are trained on, and its totals",
        "lowrank data show data/train.jsonl --template alpaca --n 2 --html tokens.html",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="JSONL: our entries, Alpaca, ShareGPT or chat messages")
    parser.add_argument(
        "--tokenizer",
        default="embedded",
        metavar="T",
        help='tokenizer.model, tokenizer.json, a folder of one, a GGUF file, or "embedded" (default)',
    )
    parser.add_argument("--template", default=DEFAULT, choices=NAMES, help="default: %(default)s")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--n", type=int, default=3, help="how many entries, or packed rows, to show (default: 3)")
    shown.add_argument("--id", metavar="ID", help="show this entry, or the packed row that it is in")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help=f"longer entries are left out (default: --pack, or {MAX_TOKENS})"
    )
    parser.add_argument("--pack", type=int, metavar="LENGTH", help="show packed rows of that many tokens")
    parser.add_argument("--html", type=file_to_write, metavar="OUT.html", help="write the tokens as a page instead")
    parser.add_argument("--json", action="store_true", help="print tokens and totals as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the tokens, or writes them as a page, and the totals."""
    from ...atomic_io import write_text
    from ...data.encoding.batching import encode
    from ...data.encoding.token_view import count
    from ...data.imports.examples import read_conversations
    from ...eval.inspect.token_page import TokenPage, render

    max_tokens, row_length = read_limits(args)
    tokenizer = find_tokenizer(args.tokenizer)
    conversations = read_conversations(args.file, args.template)
    examples = [encode(one, tokenizer, args.template) for asked in conversations for one in asked.alternatives]
    totals = count(examples, max_tokens, row_length)
    rows = choose(examples, tokenizer, max_tokens, args)
    if args.html:
        template = template_entry(args.template, tokenizer)
        about = {
            "file": args.file.name,
            "tokenizer": args.tokenizer,
            "template": f"{template['name']}, version {template['version']}",
        }
        write_text(args.html, render(TokenPage(about, totals, rows)))
    if args.json:
        print(json.dumps(to_json(args, template_entry(args.template, tokenizer), totals, rows), indent=2))
        return 0
    if not args.html:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for row in rows:
            print("\n".join(row_lines(row, shutil.get_terminal_size().columns, colour)))
    print("\n".join(total_lines(totals)))
    if args.html:
        print(f"{args.html}: {len(rows)} of them, token by token")
    return 0


def to_json(
    args: argparse.Namespace, template: dict[str, Any], totals: "Totals", rows: "Sequence[Shown]"
) -> dict[str, Any]:
    """The object that --json prints."""
    return {
        "file": str(args.file),
        "tokenizer": args.tokenizer,
        "template": template,
        "totals": totals.to_json(),
        "shown": [asdict(row) for row in rows],
    }


def read_limits(args: argparse.Namespace) -> tuple[int, int]:
    """The tokens that an entry may have, and those that a packed row holds.

    Raises ValueError for a number out of range.
    """
    for name, value, least in (("--n", args.n, 0), ("--max-tokens", args.max_tokens, 1), ("--pack", args.pack, 1)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    max_tokens = args.max_tokens or args.pack or MAX_TOKENS
    row_length = args.pack or max_tokens
    if row_length < max_tokens:
        raise ValueError(f"--pack must be at least --max-tokens, got {row_length} and {max_tokens}")
    return max_tokens, row_length


def find_tokenizer(name: str) -> "Tokenizer":
    """The tokenizer of a file, of a folder, or of the embedded base."""
    from ...checkpoints.open_base import open_tokenizer

    return open_tokenizer(name)


def choose(
    examples: "Sequence[Example]", tokenizer: "Tokenizer", max_tokens: int, args: argparse.Namespace
) -> "list[Shown]":
    """The rows that are asked for: the first `--n` of those that are trained on, or the one that holds `--id`.

    Raises ValueError for an id that no entry has.
    """
    from ...data.encoding.batching import split_by_length
    from ...data.encoding.packing import Row, pack, rows_of_one
    from ...data.encoding.token_view import show

    kept, dropped = split_by_length(examples, max_tokens)
    rows = pack(kept, args.pack) if args.pack else rows_of_one(kept)
    if args.id is None:
        return [show(row, tokenizer) for row in rows[: args.n]]
    for example in dropped:
        if example.id == args.id:
            return [show(Row((example,)), tokenizer, left_out=True)]
    matching = [row for row in rows if any(example.id == args.id for example in row.examples)]
    if not matching:
        raise ValueError(f"--id: {args.file} holds no entry {args.id!r}")
    return [show(row, tokenizer) for row in matching[:1]]


def row_lines(row: "Shown", width: int, colour: bool) -> Iterator[str]:
    """Each segment of a row as blocks of at most `width` columns: piece, id, position, and a * where supervised."""
    for number, entry in enumerate(row.entries):
        tokens = row.segment(number)
        supervised = sum(token.supervised for token in tokens)
        left_out = ", left out: too long" if row.left_out else ""
        yield f"{entry}: {len(tokens)} tokens, {supervised} supervised, segment {number}{left_out}"
        for block in blocks(tokens, width - len(LINES[-1])):
            yield from block_lines(block, colour)
        yield ""


LINES = ("piece", "id", "position", "supervised")


def blocks(tokens: "Sequence[Token]", width: int) -> "Iterator[list[Token]]":
    """As many tokens a block as stand in `width` columns, at least one."""
    block: list[Token] = []
    used = 0
    for token in tokens:
        needed = cell_width(token) + 1
        if block and used + needed > width:
            yield block
            block, used = [], 0
        block.append(token)
        used += needed
    if block:
        yield block


def block_lines(block: "Sequence[Token]", colour: bool) -> Iterator[str]:
    """A blank line, then one line each of LINES, the cells set to the right."""
    lines = [name.ljust(len(LINES[-1])) for name in LINES]
    for token in block:
        mark = "*" if token.supervised else ""
        for number, text in enumerate((token.piece, str(token.id), str(token.position), mark)):
            space = " " * (1 + cell_width(token) - columns(text))
            lines[number] += space + (SUPERVISED.format(text) if colour and token.supervised and number == 0 else text)
    yield ""
    yield from (line.rstrip() for line in lines)


def cell_width(token: "Token") -> int:
    """The columns that a token takes."""
    return max(columns(token.piece), len(str(token.id)), len(str(token.position)))


def columns(text: str) -> int:
    """Number of terminal columns that a text takes: two for a wide character, none for one that combines."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def total_lines(totals: "Totals") -> Iterator[str]:
    """The totals in words; --json names every entry that is left out."""
    from ...data.encoding.batching import name_some

    yield (
        f"{totals.entries:,} entries, in tokens: half of them up to {totals.p50:,} long (p50), "
        f"95 % up to {totals.p95:,} (p95), the longest {totals.longest:,}"
    )
    if totals.over_long:
        names = name_some([f"{id} ({length:,})" for id, length in totals.over_long.items()], most=20)
        yield f"{len(totals.over_long):,} over {totals.max_tokens:,} tokens, left out: {names}"
    else:
        yield f"none is over {totals.max_tokens:,} tokens"
    yield (
        f"{totals.tokens:,} tokens to train on, {totals.supervised:,} of them supervised: {totals.supervised_share:.1%}"
    )
    yield (
        f"packed in rows of {totals.row_length:,} tokens: {totals.rows:,} rows, "
        f"{totals.packing_efficiency:.1%} of them filled"
    )
