"""lowrank data mixture"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ...data.mixture.sources import TOTAL
from ...text_table import table
from ..arguments import add_verb


def add(kinds: Any) -> None:
    """The arguments of `lowrank data mixture`."""
    parser = add_verb(
        kinds,
        "mixture",
        "the 15,000-entry instruction set, out of four public data sets",
        "lowrank data mixture data/mixture --from raw/",
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        type=Path,
        nargs="?",
        default=Path("data/mixture"),
        help="folder for train.jsonl, two evaluation sets, the manifest and the data card (default: %(default)s)",
    )
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument(
        "--from",
        dest="raw",
        metavar="DIR",
        type=Path,
        help="a local folder with one sub-folder a data set, instead of the hub",
    )
    origin.add_argument(
        "--revision",
        action="append",
        default=[],
        metavar="NAME=COMMIT",
        type=_named_commit,
        help="another commit of a data set than the pinned one",
    )
    parser.add_argument("--seed", type=int, default=7, help="of the draw (default: %(default)s)")
    parser.add_argument("--total", type=int, default=TOTAL, help="rows to learn from (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Builds the set and says what each rule dropped; exit status 1 if a row to learn from is in a test."""
    from ...data.mixture.build import build_mixture
    from ...data.mixture.fetch import hub_files, local_files
    from ...data.mixture.leakage import LeakageError

    files = local_files(args.raw) if args.raw else hub_files(dict(args.revision))
    try:
        manifest = build_mixture(args.out, files, seed=args.seed, total=args.total)
    except LeakageError as error:
        print(f"lowrank: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({"data_sets": manifest["data_sets"], "output": manifest["output"]}, indent=2))
    else:
        print(_counts(manifest))
        print(f"{args.out / 'train.jsonl'}: {manifest['output']['train.jsonl']['rows']:,} entries; see DATA_CARD.md")
    return 0


def _counts(manifest: dict[str, Any]) -> str:
    """One column a data set, one line a rule."""
    data_sets = manifest["data_sets"].values()
    rows: list[list[object]] = [["read", *(f"{data['read']:,}" for data in data_sets)]]
    rows += [[rule, *(f"{data['dropped'][rule]:,}" for data in data_sets)] for rule in manifest["rules"]]
    rows += [[key, *(f"{data[key]:,}" for data in data_sets)] for key in ("clean", "taken")]
    return table(rows, ("rule", *manifest["data_sets"]))


def _named_commit(text: str) -> tuple[str, str]:
    """ "fingpt-ner=6e416e2..." -> ("fingpt-ner", "6e416e2...")"""
    name, _, commit = text.partition("=")
    if not (name and commit):
        raise argparse.ArgumentTypeError(f"must be NAME=COMMIT, got {text!r}")
    return name, commit
