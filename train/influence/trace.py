"""`lowrank inspect data`: the effect of each training document of a run on each test document."""

from collections.abc import Sequence
from pathlib import Path

from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import Example, encode_all
from lowrank.data.imports.examples import read_conversations
from lowrank.eval.inspect.functions import Xray
from lowrank.eval.inspect.influence import DataXray, Document
from lowrank.eval.inspect.influence_page import render, tables
from lowrank.eval.metrics.perplexity import completion_losses
from lowrank.model.loss import IGNORED
from lowrank.model.tokenizer import Tokenizer
from lowrank.progress import ProgressBar

from ..prepared_model import PreparedModel
from .effects import METHODS, Method, effects, steps_taken
from .gradients import Products, gradient_products
from .run import LoadedRun, RunFolder, read_run, unique

DEFAULT: Method = "adam"
TEST_DOCUMENTS, TEST_SEED = 20, 7  # those of the quickstart


def data(
    run: str | Path,
    test: str | Path | None = None,
    *,
    n: int = TEST_DOCUMENTS,
    top: int = 3,
    method: Method = DEFAULT,
    progress: bool = False,
) -> Xray[DataXray]:
    """The training documents that helped and hurt each test document most (`train.influence.effects`).

    run     the folder of a run that kept checkpoints: run.checkpoint_every, run.keep
    test    a file of documents; left out, our own, of companies that no training document names
    n       test documents, at most;  top: how many of each side are shown
    Raises ValueError for a run or file that is none, or does not fit.
    """
    return Xray(influence(run, test, n=n, top=top, method=method, progress=progress), tables, DataXray.to_json, render)


def influence(
    run: str | Path,
    test: str | Path | None = None,
    *,
    n: int = TEST_DOCUMENTS,
    top: int = 3,
    method: Method = DEFAULT,
    progress: bool = False,
) -> DataXray:
    """The figures of `data`."""
    for name, value in (("n", n), ("top", top)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    of = read_run(Path(run))
    chosen, train = encoded_tests(of, test, n), unique(of.examples)
    loaded = LoadedRun(of, progress=progress)
    found = products_of_run(loaded, of.kept, train, chosen, (method,), progress)
    steps = steps_taken(train, of.examples, of.config, of.log, of.kept)
    tokens = [example.supervised for example in train]
    effect, own = effects(steps, {at: products[method] for at, products in found.items()}, tokens, method)
    return DataXray(
        run=str(run),
        base=of.config.base.path,
        method=method,
        steps=len(of.log),
        checkpoints=tuple(of.kept),
        train=tuple(_document(example, of.tokenizer) for example in train),
        test=tuple(_document(example, of.tokenizer) for example in chosen),
        losses=tuple(completion_losses(loaded.model, chosen)),
        effect=effect,
        own=own,
        top=top,
    )


def products_of_run(
    run: LoadedRun,
    kept: Sequence[int],
    train: Sequence[Example],
    test: Sequence[Example],
    methods: Sequence[Method],
    progress: bool,
) -> dict[int, dict[Method, Products]]:
    """The products of gradients at every checkpoint, by its steps and the method; the last one's hat is left there."""
    found: dict[int, dict[Method, Products]] = {}
    total = len(kept) * (len(train) + len(test))
    with PreparedModel(run.model, "none"), ProgressBar(total=total, desc="gradients", disable=not progress) as bar:
        for steps in kept:
            scales = run.put(steps)
            chosen = {name: scales[name] for name in methods}
            found[steps] = gradient_products(run.model, run.parameters, train, test, chosen, bar)
    return found


def encoded_tests(run: RunFolder, file: str | Path | None, n: int) -> list[Example]:
    """At most n test documents, encoded as the run's own are.  Raises ValueError for a file of none that fits."""
    table = run.config.data
    if file is None:
        conversations = [entry.conversation for entry in make_documents(n, seed=TEST_SEED, split="test")]
    else:
        conversations = read_conversations(Path(file), table.template, is_preference=False)[:n]
    return encode_all(conversations, run.tokenizer, table.template, table.max_tokens)[0]


def _document(example: Example, tokenizer: Tokenizer) -> Document:
    """With the text that is learned of it; of one that is excluded, all of it."""
    learned = [token for token, label in zip(example.tokens, example.labels, strict=True) if label != IGNORED]
    return Document(example.id, example.supervised, tokenizer.decode(learned or list(example.tokens)).strip())
