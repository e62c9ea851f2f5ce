"""Shared fixtures.

The repository root is kept off sys.path, so that only the installed package `lowrank` is under test.
"""

import gc
import lzma
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from error_bounds import assert_logits_are_equal
from peers import Refusal
from safetensors.torch import load, load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# A shell's background job ignores SIGINT, and its children would: a run that is interrupted in a test must notice.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from lowrank.checkpoints.embedded import base_folder  # noqa: E402  (after the line above, on purpose)
from lowrank.checkpoints.load import load_tokenizer  # noqa: E402
from lowrank.data.documents import kinds  # noqa: E402
from lowrank.model.config import ModelConfig  # noqa: E402
from lowrank.model.llama import TORCH_OPS, Llama, Ops  # noqa: E402
from lowrank.model.tokenizer import Tokenizer  # noqa: E402

CASES_IN_CHECK = 4


def pytest_configure(config: pytest.Config) -> None:
    """Keeps `make check` quick: what is held to another program is slow, for that program has to be imported."""
    if config.option.markexpr == "not slow":
        sys.meta_path.insert(0, Refusal())


def pytest_collection_finish() -> None:
    """Keeps the collected tests from the garbage collector, each pass of which would walk through ten thousand."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Triton's bindings look for what was never freed when Python ends."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks long tests as slow, too, and all but `CASES_IN_CHECK` cases of a test, which are spread over them."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
        if item.get_closest_marker("long"):
            item.add_marker("slow")
    for of_a_test in cases.values():
        kept = {number * (len(of_a_test) - 1) // (CASES_IN_CHECK - 1) for number in range(CASES_IN_CHECK)}
        for number, item in enumerate(of_a_test):
            if number not in kept:
                item.add_marker("slow")


@pytest.fixture(scope="module", autouse=True)
def kinds_of_this_module() -> Iterator[None]:
    """Kinds of one's own are known to the process: those that a module adds are not known to the next."""
    before = dict(kinds._OWN)
    yield
    kinds._OWN.clear()
    kinds._OWN.update(before)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of stored outputs of other programs."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def hf_folder(golden: Path) -> Path:
    return golden / "hf-tiny-qlora"


@pytest.fixture(scope="session")
def hf_reference(hf_folder: Path) -> dict[str, Tensor]:
    return load_file(hf_folder / "reference.safetensors")


@pytest.fixture(scope="session")
def vectors(golden: Path) -> dict[str, Tensor]:
    """Inputs and outputs of bitsandbytes' quantizers."""
    return load(lzma.decompress((golden / "bitsandbytes" / "vectors.safetensors.xz").read_bytes()))


@pytest.fixture(scope="session")
def llama2_tokenizer() -> Path:
    """Llama 2's SentencePiece model, whose licence keeps it out of this repository."""
    path = os.environ.get("LOWRANK_LLAMA2_TOKENIZER")
    if not path:
        pytest.skip("LOWRANK_LLAMA2_TOKENIZER does not name Llama 2's tokenizer.model")
    return Path(path)


@pytest.fixture(scope="session")
def assert_logits_equal() -> Callable[[Tensor, Tensor], None]:
    """Equal within the bound of float32 logits, which grows with the largest."""
    return assert_logits_are_equal


@pytest.fixture(scope="session")
def make_llama() -> Callable[..., Llama]:
    """A small random Llama with grouped-query attention, the same one for the same arguments."""
    small = ModelConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, hidden_dim=64, vocab_size=64, max_seq_len=64)

    def make(ops: Ops = TORCH_OPS, **changes: Any) -> Llama:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Llama(replace(small, **changes), ops).requires_grad_(False).eval()

    return make


@pytest.fixture(scope="session")
def random_tokens() -> Callable[..., Tensor]:
    """Tokens of the small vocabulary: random_tokens(2, 9) is int64 [2, 9]."""
    return lambda *shape: torch.randint(3, 64, shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The folder of the base that comes with the package."""
    return base_folder("embedded")


@pytest.fixture(scope="session")
def tokenizer(embedded: Path) -> Tokenizer:
    """The tokenizer of the embedded base."""
    return load_tokenizer(embedded)
