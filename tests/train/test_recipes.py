"""The recipes that come with the package, and the page that documents their keys."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from lowrank.adapters.accounting import adapter_parameters
from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import encode_all
from lowrank.model.config import PRESETS
from lowrank.model.tokenizer import Tokenizer
from lowrank.train.config import RECIPES, TrainConfig, recipe_names, recipe_path

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    *(f"{data}-{size}" for data in ("documents", "mixture") for size in PRESETS),
    *("qlora-paper", "qlora-paper-13b", "qlora-paper-70b"),
]
EMBEDDED = ["right-figures"]  # on the base that comes with the package


def keys(config: TrainConfig) -> dict[str, object]:
    return {f"{table}.{key}": value for table, row in config.to_dict().items() for key, value in row.items()}


def test_every_key_is_on_the_page_with_its_default() -> None:
    page = (ROOT / "docs" / "training.md").read_text()
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| `(.+?)` \| (.+) \|$", page, re.MULTILINE)
    told = {key: tomllib.loads(f"value = {default}")["value"] for key, default, _ in rows}
    assert told == keys(TrainConfig())
    assert len(rows) == len(told) and all(meaning for _, _, meaning in rows)


def test_the_recipes_are_those_that_the_page_lists() -> None:
    assert recipe_names() == sorted([*NAMES, *EMBEDDED])
    page = (ROOT / "docs" / "training.md").read_text()
    assert all(f"`{name}`" in page for name in recipe_names())


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_states_what_it_takes(name: str) -> None:
    text = recipe_path(name).read_text()
    config = TrainConfig.read(name)
    written = tomllib.loads(text)
    assert {"epochs", "batch"} <= written["run"].keys() and {"entries", "tokens", "supervised"} <= written[
        "data"
    ].keys()
    assert config.base.shape in PRESETS and config.base.path.endswith(config.base.shape)
    shape = PRESETS[config.base.shape]
    count = adapter_parameters(shape, config.adapter.rank, config.adapter.targets)
    assert f"{count:,} parameters, {4 * count / 1e6:.2f} MB" in text
    batches = -(-config.data.entries // config.run.batch)
    steps = config.run.epochs * -(-batches // config.run.accumulate)
    assert f"{steps:,} steps of {config.run.batch * config.run.accumulate} rows" in text
    for count in (config.data.tokens, config.data.supervised):
        assert f"{count:,}" in text
    assert config.data.estimated == (not name.startswith("documents"))
    assert ("Its tokens are an estimate" if config.data.estimated else "counted with\n# Llama 2's tokenizer") in text


def test_the_estimate_of_the_mixture_is_the_sum_that_it_says() -> None:
    data = TrainConfig.read("mixture-7b").data
    assert data.tokens == 5_000 * (43 + 13 + 214) + 10_000 * (43 + 29 + 3)
    assert data.supervised == 5_000 * 214 + 10_000 * 3


def test_the_hats_of_the_recipes_have_the_sizes_that_are_said() -> None:
    seven = PRESETS["7b"]
    assert 4 * adapter_parameters(seven, 8, "all") == 79_953_920
    assert 4 * adapter_parameters(seven, 16, "attention") == 67_108_864


def test_a_recipe_is_refused_by_a_name_that_is_none() -> None:
    with pytest.raises(
        ValueError, match=r"document-7b: no such file, and no recipe: documents-13b, documents-70b, doc"
    ):
        TrainConfig.read("document-7b")


def test_a_file_of_the_name_of_a_recipe_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("documents-7b").write_text("[adapter]\nrank = 3\n")
    assert TrainConfig.read("documents-7b").adapter.rank == 3


def test_the_tokens_of_the_documents_are_those_of_llama_2(llama2_tokenizer: Path) -> None:
    config = TrainConfig.read("documents-7b")
    entries = [entry.conversation for entry in make_documents(100, seed=7, split="train")]
    examples, _ = encode_all(entries, Tokenizer(llama2_tokenizer), config.data.template, config.data.max_tokens)
    assert (len(examples), sum(map(len, examples)), sum(example.supervised for example in examples)) == (
        config.data.entries,
        config.data.tokens,
        config.data.supervised,
    )


def test_recipes_are_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "recipes/*.toml" in project["tool"]["setuptools"]["package-data"]["lowrank.train"]
    assert json.dumps(sorted(path.name for path in RECIPES.iterdir())).count(".toml") == len(recipe_names())
