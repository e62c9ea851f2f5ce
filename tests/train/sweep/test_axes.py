"""The points of a sweep, and what may not be swept."""

from pathlib import Path

import pytest

from lowrank.train.sweep.axes import AT_THE_END, VALIDATION, Sweep, split_values


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(f'[run]\nout = "{tmp_path / "out"}"\nepochs = 1\n')
    return path


def test_every_combination_is_a_point(recipe: Path, tmp_path: Path) -> None:
    sweep = Sweep.read(recipe, ["adapter.rank=4,8", "optimizer.lr = 1e-4, 3e-4", "seed=0,1", "run.batch=2"])
    assert dict(sweep.axes) == {"adapter.rank": [4, 8], "optimizer.lr": [1e-4, 3e-4], "run.seed": [0, 1]}
    assert len(sweep.points) == 8
    first, last = sweep.points[0], sweep.points[-1]
    assert (first.name, first.out) == ("rank-4_lr-0.0001_seed-0", tmp_path / "out" / "rank-4_lr-0.0001_seed-0")
    assert (last.config.adapter.rank, last.config.optimizer.lr, last.config.run.seed) == (8, 3e-4, 1)
    assert {point.config.run.batch for point in sweep.points} == {2}
    assert len({point.config.adapter.name for point in sweep.points}) == 8


def test_names_are_of_their_own_where_the_values_read_alike(recipe: Path) -> None:
    sweep = Sweep.read(recipe, ['adapter.targets=["attention.wq"],["attention.wq","attention.wk"],all,attention'])
    names = [point.name for point in sweep.points]
    assert len(set(names)) == 4 and all("/" not in name for name in names)


def test_something_is_held_out(recipe: Path) -> None:
    sweep = Sweep.read(recipe, ["adapter.rank=4,8"])
    assert (sweep.config.data.validation, sweep.config.watch.every) == (VALIDATION, AT_THE_END)
    assert len(sweep.notes) == 1
    named = Sweep.read(recipe, ["adapter.rank=4,8", "watch.held_out=documents", "watch.every=5"])
    assert (named.config.data.validation, named.config.watch.every, named.notes) == (0.0, 5, [])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4,8", ["4", "8"]),
        ("[0.9, 0.99]", ["[0.9, 0.99]"]),
        ("[0.9, 0.99], [0.8, 0.9]", ["[0.9, 0.99]", "[0.8, 0.9]"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ("", []),
    ],
)
def test_commas_in_brackets_and_quotes_part_no_values(text: str, values: list[str]) -> None:
    assert split_values(text) == values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["base.weights=nf4,fp4"], r"base\.weights cannot be swept"),
        (["data.train=a.jsonl,b.jsonl"], r"data\.train cannot be swept"),
        (["adapter.dora=true,false"], r"adapter\.dora cannot be swept"),
        (["run.out=a,b"], r"run\.out cannot be swept"),
        (["adapter.rank=4,8,4"], r"adapter\.rank: every value must be named once, got 4 twice"),
        (["adapter.rank=4"], r"name a setting with several values"),
        (["adapter.rank=4,0"], r"adapter\.rank must be"),
        (["adapter.rank=4,x"], r"adapter\.rank must be of type int"),
        (["adapter.rank=4,8", "adapter.dora=true"], r"adapter\.dora must be false in a sweep"),
        (["adapter.rank=4,8", "adapter.merge_aware=nf4"], r"adapter\.merge_aware must be empty"),
        (["adapter.rank=4,8", "adapter.start=pissa"], r"adapter\.start must be 'default'"),
        (["adapter.rank=4,8", "run.parallel=shards"], r"run\.parallel must be 'replicas'"),
        (["adapter.ranks=4,8"], r"adapter\.ranks cannot be swept"),
    ],
)
def test_what_may_not_be_swept_is_refused_by_name(recipe: Path, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        Sweep.read(recipe, words)
    assert "\n" not in str(refused.value)
