"""lowrank conformance"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from .arguments import add_overwrite, add_verb, refuse_existing


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "conformance",
        "vectors of NF4 as files, and the rule that an implementation breaks",
        "lowrank conformance grade kit answers",
    )
    steps = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)
    kit = add_verb(
        steps, "kit", "the vectors, their schema and a grader in C, as a folder", "lowrank conformance kit nf4-kit"
    )
    kit.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    add_overwrite(kit)
    kit.set_defaults(run=_kit)
    grade = add_verb(
        steps, "grade", "answers to the kit, rule by rule", "lowrank conformance grade nf4-kit answers --table"
    )
    grade.add_argument("kit", metavar="KIT", type=Path, help="the kit's folder")
    grade.add_argument("answers", metavar="ANSWERS", type=Path, help="CASE.OUTPUT.bin files, or CASE.refused")
    _add_shown(grade)
    grade.set_defaults(run=_grade)
    run = add_verb(
        steps,
        "run",
        "an implementation that is installed: lowrank, reference, plain, iq4_nl, bitsandbytes, torchao, torchao-levels",
        "lowrank conformance run bitsandbytes",
    )
    run.add_argument("implementation", metavar="NAME")
    run.add_argument("--answers", type=Path, metavar="OUT", help="keep its answers in a folder")
    _add_shown(run)
    run.set_defaults(run=_run)


def _add_shown(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", action="store_true", help="a row a rule")
    parser.add_argument("--json", action="store_true", help="print every finding as JSON")


def _kit(args: argparse.Namespace) -> int:
    from ..eval.conformance.kit import write_kit

    refuse_existing(args.out, args.overwrite)
    count = len((write_kit(args.out) / "SHA256SUMS").read_text().splitlines())
    print(f"{args.out}: {count} files; manifest.json and cases.txt say what each is")
    return 0


def _grade(args: argparse.Namespace) -> int:
    from ..eval.conformance.grade import grade

    verdict = grade(args.kit, args.answers)
    if args.json:
        print(json.dumps(verdict.to_json(), indent=2))
    else:
        print(f"{verdict.table()}\n\n{verdict.sentence()}" if args.table else verdict.sentence())
    return 1 if verdict.broken else 0


def _run(args: argparse.Namespace) -> int:
    from ..eval.conformance.implementations import answer, implementation
    from ..eval.conformance.kit import write_kit

    made = implementation(args.implementation)
    with tempfile.TemporaryDirectory() as scratch:
        args.kit = write_kit(Path(scratch) / "kit")
        args.answers = answer(made, args.answers or Path(scratch) / "answers")
        return _grade(args)
