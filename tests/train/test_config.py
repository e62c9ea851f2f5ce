"""A run's TOML: what it says is taken, what it misspells is refused by name."""

import pytest

from lowrank.train.config import TrainConfig


def write(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_a_file_fills_the_tables_and_leaves_the_rest_at_its_default(tmp_path):
    path = write(tmp_path, "[adapter]\nrank = 4\ntargets = ['wq', 'wv']\n[optimizer]\nlr = 1\n")
    config = TrainConfig.read(path)
    assert (config.adapter.rank, config.adapter.targets, config.adapter.alpha) == (4, ["wq", "wv"], 16.0)
    assert config.optimizer.lr == 1.0 and isinstance(config.optimizer.lr, float)
    assert config.run.epochs == 3


def test_overrides_are_put_over_the_file(tmp_path):
    path = write(tmp_path, "[run]\nepochs = 2\n")
    config = TrainConfig.read(path, ["run.epochs=5", "optimizer.schedule=cosine", "base.path=some/folder"])
    assert (config.run.epochs, config.optimizer.schedule, config.base.path) == (5, "cosine", "some/folder")


def test_a_config_survives_its_own_dict():
    config = TrainConfig.from_dict({"adapter": {"rank": 3}, "run": {"out": "x"}})
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer]\nleaning_rate = 1", r"optimizer: unknown key 'leaning_rate': known: lr,"),
        ("[optimizer]\nshedule = 'cosine'", r"optimizer: unknown key 'shedule': did you mean 'schedule'\?"),
        ("[optimiser]\nlr = 1", r"unknown key 'optimiser': did you mean 'optimizer'\?"),
        ("[run]\nepochs = 'three'", r"run\.epochs must be of type int, got 'three'"),
        ("[run]\nepochs = true", r"run\.epochs must be of type int, got True"),
        ("[run]\nepochs = 0", r"run\.epochs must be at least 1, got 0"),
        ("[optimizer]\nschedule = 'linear'", r"optimizer\.schedule must be one of constant, cosine, got 'linear'"),
        ("[optimizer]\nlr = 0.0", r"optimizer\.lr must be above 0, got 0\.0"),
        ("[optimizer]\nbetas = [0.9]", r"optimizer\.betas must be two numbers in \[0, 1\), got \[0\.9\]"),
        ("[optimizer]\nlora_plus = -1", r"optimizer\.lora_plus must be above 0, got -1\.0"),
        ("[optimizer]\nstates = '4bit'", r"optimizer\.states must be one of fp32, 8bit, paged, paged-8bit, got '4bit'"),
        ("[base]\nshape = '8b'", r"base\.shape must be one of '', 7b, 13b, 70b, got '8b'"),
        ("[run]\nkeep = 0", r"run\.keep must be at least 1, got 0"),
        ("[watch]\nevery = 5", r"watch\.every needs data\.validation, or watch\.held_out"),
        ("[watch]\ntrackers = ['mlflow']", r"watch\.trackers must be one of tensorboard, wandb, trackio, got 'mlflow'"),
        ("[data]\ntemplate = 'chatml'", r"data\.template must be one of alpaca, .*, plain, got 'chatml'"),
        ("[data]\npack = 512", r"data\.pack must be 0 or at least data\.max_tokens, got 512 and 1024"),
        ("[data]\npack = -1", r"data\.pack must be 0 or at least data\.max_tokens, got -1 and 1024"),
        ("[data]\npack = 1024\ngroup_by_length = true", r"data\.group_by_length must be false with data\.pack"),
        ("run = 3", r"run must be a table, got 3"),
        ("[run", r"not TOML"),
    ],
)
def test_a_mistake_is_refused_with_file_table_and_key(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        TrainConfig.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"an override is table\.key=value"):
        TrainConfig.read(write(tmp_path, ""), ["epochs=3"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.toml: no such file"):
        TrainConfig.read(tmp_path / "nowhere.toml")
