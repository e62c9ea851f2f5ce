"""--model of `inspect params` and `inspect sizes`."""

import argparse

from ..arguments import file_to_write


def add_model(parser: argparse.ArgumentParser) -> None:
    """--model, --json and --html."""
    parser.add_argument(
        "--model",
        default="7b",
        help="7b (default), 13b, 70b, embedded, a folder, a GGUF file, a params.json or config.json",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--html", metavar="FILE", type=file_to_write, help="write a page with plots")
