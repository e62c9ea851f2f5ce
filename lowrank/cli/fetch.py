"""lowrank fetch"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text_table import table
from .arguments import add_verb

if TYPE_CHECKING:
    from ..hub.fetch import Manifest


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "fetch",
        "weights, a hat or a data set from the Hugging Face hub, pinned and hashed",
        "lowrank fetch meta-llama/Llama-2-7b --to weights/llama-2-7b",
    )
    parser.add_argument("repository", metavar="REPO", help="OWNER/NAME on the hub")
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder to fill (default: NAME)")
    parser.add_argument("--revision", metavar="R", help="a branch, tag or commit (default: main, as it is now)")
    parser.add_argument("--type", choices=("model", "dataset"), default="model", help="default: %(default)s")
    parser.add_argument(
        "--verify", action="store_true", help="only check a fetched folder against its manifest.json, off the network"
    )
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetches, or verifies, and says what the folder holds."""
    from ..hub.client import Repository
    from ..hub.fetch import fetch, verify

    folder = args.to or Path(args.repository.rpartition("/")[2])
    manifest = (verify if args.verify else fetch)(Repository(args.repository, args.type), folder, args.revision)
    print(json.dumps(manifest.to_json(), indent=2) if args.json else _described(manifest, folder))
    return 0


def _described(manifest: "Manifest", folder: Path) -> str:
    rows = [(name, f"{file.bytes:,}", file.sha256) for name, file in manifest.files.items()]
    commit = f"{manifest.commit} ({manifest.revision})"
    line = f"{folder}: {manifest.repository} at {commit}, {manifest.bytes / 1e9:.2f} GB, whole"
    return f"{table(rows, ('file', 'bytes', 'SHA-256'))}\n{line}"
