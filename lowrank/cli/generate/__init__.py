"""lowrank generate"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.documents.rule_names import RULES
from ...data.encoding.template import NAMES
from ..arguments import (
    FASTER_DTYPE,
    HEADS,
    WEIGHTS_HELP,
    add_adapters,
    add_base,
    add_cache,
    add_cache_limit,
    add_force,
    add_prefixes,
    add_verb,
    compute_dtype,
    dtype_name,
    file_to_write,
    prefix_cache,
    tell_dtype,
    writing_dtype,
)
from ..start import import_torch
from .session import GenerationSession, Use, read_one, shown, side_by_side

if TYPE_CHECKING:
    from ...data.documents.facts_record import FactsRecord
    from ...model.logprobs import TokenLogprob
    from ...model.sampling import SamplingOptions
    from ...model.tokenizer import Tokenizer


def add(verbs: Any) -> None:
    """The arguments of the verb."""
    parser = add_verb(
        verbs,
        "generate",
        "write a text, as it comes",
        "lowrank generate embedded --adapter finance=runs/quickstart/hat --use finance"
        " --facts runs/quickstart/facts.txt --kind credit_memo --grounded --html document.html",
    )
    add_base(parser, FASTER_DTYPE)
    add_adapters(parser)
    add_force(parser)
    parser.add_argument("--use", metavar="NAME", help="the hat to wear: NAME, a mix NAME=0.7,OTHER=0.3, or none")
    parser.add_argument("--compare", metavar="A,B,none", help="several at once, side by side; a mix is A=0.7+B=0.3")
    parser.add_argument("--watch", action="store_true", help="keep the base, and ask for texts, hats and settings")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--prompt", help="text to go on from, as it is")
    asked.add_argument(
        "--facts", type=Path, help='facts as lines "label: value", a table, CSV, XLSX or JSON; needs --kind'
    )
    parser.add_argument("--record", metavar="NAME", help="of a --facts file with several records: its name or number")
    parser.add_argument(
        "--locale", help="how --facts writes numbers and dates, such as de or en_US (default: as they tell themselves)"
    )
    parser.add_argument(
        "--kind",
        help="the kind of document to write from --facts: credit_memo, FILE.toml, or one that a hat stores "
        "(default: the only one that the hats store)",
    )
    parser.add_argument("--grounded", action="store_true", help="write no figure that is not in --facts, or follows")
    parser.add_argument(
        "--derive",
        action="append",
        default=[],
        metavar="RULE",
        help=f"what else follows from --facts: {', '.join(RULES)}, of all figures or as in 'ratio(debt, ebitda)'",
    )
    parser.add_argument(
        "--template", choices=NAMES, help="of --facts (default: that of the hats in use; another is refused)"
    )
    parser.add_argument(
        "--html", type=file_to_write, metavar="FILE", help="a page with every figure linked to its fact"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="a folder: a document a record of --facts, each with its audit"
    )
    parser.add_argument("--format", help="of --out: some of md,html,docx (default: md)")
    parser.add_argument("--batch", type=int, metavar="N", help="of --out: documents at a time, up to 64 (default: 8)")
    add_cache_limit(parser, "of the documents of --out at a time")
    parser.add_argument("--resume", action="store_true", help="of --out: go on with a folder that was interrupted")
    parser.add_argument("--json", action="store_true", help="the texts, and with --facts their figures, as JSON")
    parser.add_argument(
        "--logprobs",
        type=int,
        metavar="N",
        help="of --json: log p of each token, and of the N likeliest in its place (0 to 20)",
    )
    parser.add_argument("--weights", help=f"{WEIGHTS_HELP} (default: nf4-dq, or as stored)")
    parser.add_argument("--head", choices=HEADS, help="format of the output head (default: as stored, or --dtype)")
    add_cache(parser)
    add_prefixes(parser)
    parser.add_argument("--max-new-tokens", type=int, default=400, help="default: %(default)s")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 (default) takes the likeliest token")
    parser.add_argument("--top-k", type=int, default=0, help="keep the K likeliest tokens (0: all)")
    parser.add_argument("--top-p", type=float, default=1.0, help="keep the likeliest tokens up to this share")
    parser.add_argument("--min-p", type=float, default=0.0, help="keep tokens with this share of the likeliest one's")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1: what was said is less likely")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Streams the text to standard output, or shows several side by side."""
    import_torch()
    from ...model.logprobs import MOST

    args.dtype, args.dtype_reason = writing_dtype(args.dtype, args.device)
    sampling = read_sampling(args)
    if args.out is not None:
        from .bulk import write_documents

        return write_documents(args, sampling)
    if args.logprobs is not None:
        if not args.json or args.out is not None:
            raise ValueError("--logprobs is of --json, without --out: a text by itself has no place for them")
        if not 0 <= args.logprobs <= MOST:
            raise ValueError(f"--logprobs must be 0 to {MOST}, got {args.logprobs}")
    for name in ("format", "batch", "cache_limit", "resume"):
        if getattr(args, name):
            raise ValueError(f"--{name.replace('_', '-')} is of --out: without a folder there is one text")
    if args.facts is None:
        if args.prompt is None and not args.watch:
            raise ValueError("one of the arguments --prompt --facts is required")
        if args.template and args.prompt is not None:
            raise ValueError("--template is of --facts: --prompt is taken as it is")
        for name, given in (
            ("--grounded", args.grounded),
            ("--derive", args.derive),
            ("--html", args.html),
            ("--record", args.record),
            ("--locale", args.locale),
        ):
            if given and not args.watch:
                raise ValueError(f"{name} is of --facts: a --prompt names no record")
    subject = None
    if args.facts is not None:
        from ...data.documents.facts_record import FactsRecord
        from ..kinds import chosen_kind

        kind = chosen_kind(args.kind, [path for _, path in args.adapter])
        subject = FactsRecord.read(args.facts, kind, args.derive, record=args.record, locale=args.locale)
        tell(subject)
    if args.compare is not None and args.use is not None:
        raise ValueError("--compare names the hats itself: leave out --use")
    compare = read_compare(args.compare) if args.compare is not None else []
    use = (
        None if compare or (args.watch and args.use is None) else read_use(args.use, [name for name, _ in args.adapter])
    )
    if subject is not None:
        from ..kinds import check_kind

        check_kind(subject.kind, active_adapters(args, compare or [use]), force=args.force)
    session = open_session(args, sampling)
    session.use, session.compare, session.subject = use, compare, subject
    if args.watch:
        from .repl import watch

        return watch(session, sys.stdin, args.prompt)
    if compare or args.json:
        texts = session.write(args.prompt)
        print(as_json(session, texts) if args.json else side_by_side([shown(use) for use in session.uses], texts))
    else:
        texts = [""]
        for piece in session.stream(args.prompt):
            texts[0] += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
    for reason in session.cut_reasons():
        print(f"lowrank: note: {reason}", file=sys.stderr)
    if subject is not None:
        for line in endings(session, texts):
            print(line, file=sys.stderr)
    if args.html:
        write_page(args.html, session, texts)
    return 0


def tell(subject: "FactsRecord") -> None:
    """Says on standard error how many facts were read, and what was not."""
    print(subject.summary, file=sys.stderr)
    for note in subject.notes:
        print(f"{note}", file=sys.stderr)


def endings(session: GenerationSession, texts: list[str]) -> Iterator[str]:
    """The end of each text: its figures, the facts that are not used, what is not in the facts or not understood."""
    from ...eval.metrics.faithfulness import check
    from ...eval.metrics.tally import faults, tally

    assert session.subject is not None
    entry = session.subject.entry()
    for use, text in zip(session.uses, texts, strict=True):
        result = check(entry, text)
        name = f"{shown(use)}: " if len(texts) > 1 else ""
        yield f"{name}{tally(entry, text, result, session.subject.unread)}"
        yield from (f"{name}{line}" for line in faults(result))


def open_session(args: argparse.Namespace, sampling: "SamplingOptions") -> GenerationSession:
    """The base with its hats, loaded."""
    from ...adapters.files import load_adapter
    from ...checkpoints.embedded import base_folder
    from ...checkpoints.load import load, load_tokenizer
    from ...layers.quantized_cache import use_cache_format

    prefixes = prefix_cache(args)
    folder = base_folder(args.base)
    tokenizer = load_tokenizer(folder)
    model = load(folder, args.weights, compute_dtype(args.dtype), args.device, head=args.head, force=args.force)
    use_cache_format(model, args.cache)
    tell_dtype(args.base, model, args.dtype_reason)
    loaded = {name: (path, load_adapter(model, name, path, force=args.force)) for name, path in args.adapter}
    return GenerationSession(
        model,
        tokenizer,
        args.base,
        loaded,
        template=args.template,
        grounded=args.grounded,
        max_new_tokens=args.max_new_tokens,
        stop=args.stop,
        sampling=sampling,
        logprobs=args.logprobs,
        prefixes=prefixes,
        can_repeat=args.watch or (args.prefixes is not None and args.out is None),
    )


def read_sampling(args: argparse.Namespace) -> "SamplingOptions":
    """The options of sampling.  Raises ValueError for a value out of range, with the argument's name."""
    from ...model.sampling import Sampling, SamplingOptions

    if args.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens must be at least 1, got {args.max_new_tokens}")
    options: SamplingOptions = {
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "min_p": args.min_p,
        "repetition_penalty": args.repetition_penalty,
        "seed": args.seed,
    }
    try:
        Sampling(**options)
    except ValueError as error:
        name, _, rule = str(error).partition(" ")
        raise ValueError(f"--{name.replace('_', '-')} {rule}") from None
    return options


def read_use(text: str | None, names: list[str]) -> Use:
    """--use as `use_adapter` takes it; left out, the only hat there is.

    Raises ValueError if several hats leave the choice open, or a weight is no number.
    """
    if text is None:
        if len(names) > 1:
            raise ValueError(f"--use must name one of the hats {', '.join(names)}, a mix of them, or none")
        return names[0] if names else None
    return read_one(text, separator=",")


def active_adapters(args: argparse.Namespace, uses: list[Use]) -> list[Path]:
    """The folders of the hats that some texts are written in."""
    used = {name for use in uses for name in ([use] if isinstance(use, str) else use or ())}
    return [path for name, path in args.adapter if name in used]


def read_compare(text: str) -> list[Use]:
    """ "a,b=0.7+c=0.3,none" -> ["a", {"b": 0.7, "c": 0.3}, None].  Raises ValueError for fewer than two."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if len(parts) < 2:
        raise ValueError(f"--compare must name two hats or more, none among them if wanted, got {text!r}")
    return [read_one(part) for part in parts]


def as_json(session: GenerationSession, texts: list[str]) -> str:
    """A row for each text: what it was written in, the text, and its figures if there is a record."""
    rows: list[dict[str, Any]] = [
        {"use": shown(use), "text": text, "end": completion.end, "dtype": dtype_name(session.model)}
        for use, text, completion in zip(session.uses, texts, session.written, strict=True)
    ]
    for row, completion in zip(rows, session.written, strict=True):
        if completion.logprobs is not None:
            row["logprobs"] = [logprob_json(one, session.tokenizer) for one in completion.logprobs]
    if session.subject is not None:
        from ...eval.metrics.faithfulness import check

        for row in rows:
            result = check(session.subject.entry(), row["text"])
            row["figures"] = [
                {
                    "text": figure.text,
                    "start": figure.start,
                    "end": figure.end,
                    "fact": figure.fact,
                    "bound": figure.bound,
                }
                for figure in result.figures
            ]
            row |= {"precision": result.precision, "recall": result.recall, "binding": result.binding}
            row |= {"not_understood": result.not_understood}
    return json.dumps(rows, indent=2, ensure_ascii=False)


def logprob_json(token: "TokenLogprob", tokenizer: "Tokenizer") -> dict[str, Any]:
    """A token as --json has it: id, piece, log p, and the likeliest in its place, [id, piece, log p] each."""
    top = [[other, tokenizer.piece(other), value] for other, value in token.top]
    return {"id": token.token, "piece": tokenizer.piece(token.token), "logprob": token.logprob, "top": top}


def write_page(path: Path, session: GenerationSession, texts: list[str]) -> None:
    """The texts beside their record, every figure linked to the fact that it states."""
    from ...atomic_io import write_text
    from ...eval.grid.document_page import Report, Written, render

    assert session.subject is not None
    entry = session.subject.entry()
    how = "grounded" if session.grounded else "not grounded"
    documents = [
        Written(entry, None if use is None else shown(use), how, text, session.subject.unread)
        for use, text in zip(session.uses, texts, strict=True)
    ]
    settings = {name.replace("_", " "): str(value) for name, value in session.sampling.items()}
    run = {"base": session.base, "compute type": dtype_name(session.model), "figures": how, **settings}
    notes = [
        "A figure is linked to the fact that it states. Facts with a formula follow from others by declared rules."
    ]
    write_text(path, render(Report(f"Written from {session.subject.name}", run, [], [], [], documents, notes)))
