"""lowrank doctor"""

import argparse
import json
from typing import Any

from .arguments import add_verb


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "doctor",
        "what this machine has, and what therefore runs slowly or not at all; status 1 if something is broken",
        "lowrank doctor --json",
    )
    parser.add_argument("--json", action="store_true", help="print the same as one JSON object, sizes in bytes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the page."""
    from ..workflows.doctor import examine

    report = examine()
    print(json.dumps(report.to_json(), indent=2) if args.json else report.text())
    return 1 if report.broken else 0
