"""A run's TOML: what it says is taken, what it misspells is refused by name."""

from pathlib import Path

import pytest

from lowrank.data.encoding.batching import epoch_batches
from lowrank.train.config import TrainConfig


def write(tmp_path: Path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_a_file_fills_the_tables_and_leaves_the_rest_at_its_default(tmp_path: Path) -> None:
    path = write(tmp_path, "[adapter]\nrank = 4\ntargets = ['wq', 'wv']\n[optimizer]\nlr = 1\n")
    config = TrainConfig.read(path)
    assert (config.adapter.rank, config.adapter.targets, config.adapter.alpha) == (4, ["wq", "wv"], 16.0)
    assert config.optimizer.lr == 1.0 and isinstance(config.optimizer.lr, float)
    assert config.run.epochs == 3


def test_overrides_are_put_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[run]\nepochs = 2\n")
    config = TrainConfig.read(path, ["run.epochs=5", "optimizer.schedule=cosine", "base.path=some/folder"])
    assert (config.run.epochs, config.optimizer.schedule, config.base.path) == (5, "cosine", "some/folder")


def test_a_config_survives_its_own_dict() -> None:
    config = TrainConfig.from_dict({"adapter": {"rank": 3}, "run": {"out": "x"}})
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer]\nleaning_rate = 1", r"optimizer: unknown key 'leaning_rate': known: lr,"),
        ("[optimizer]\nshedule = 'cosine'", r"optimizer: unknown key 'shedule': did you mean 'schedule'\?"),
        ("[optimiser]\nlr = 1", r"unknown key 'optimiser': did you mean 'optimizer'\?"),
        ("[run]\nepochs = 'three'", r"run\.epochs must be of type int or float, got 'three'"),
        ("[run]\nepochs = true", r"run\.epochs must be of type int or float, got True"),
        ("[run]\nepochs = 0", r"run\.epochs must be above 0, got 0"),
        ("[optimizer]\nschedule = 'wsd'", r"optimizer\.schedule must be one of constant, linear, cosine, got 'wsd'"),
        ("[optimizer]\nclip = inf", r"optimizer\.clip must be finite and at least 0, where 0 is no clipping, got inf"),
        ("[optimizer]\nwarmup = 3\nwarmup_ratio = 0.1", r"warmup_ratio must be 0 beside optimizer\.warmup = 3"),
        ("[optimizer]\nwarmup_ratio = 1.5", r"optimizer\.warmup_ratio must be in \[0, 1\), got 1\.5"),
        ("[optimizer]\nbetas = ['a', 'b']", r"optimizer\.betas\[0\] must be of type float, got 'a'"),
        ("[optimizer]\nlearning_rate = 1.0", r"optimizer: unknown key 'learning_rate': here it is optimizer\.lr"),
        ("path = 'embedded'", r"unknown key 'path': here it is base\.path"),
        ("[run]\nseed = 9223372036854775808", r"run\.seed must be from 0 to 2\^63 - 1, got 9223372036854775808"),
        ("[run]\nseed = -1", r"run\.seed must be from 0 to 2\^63 - 1, got -1"),
        ("[run]\nepochs = nan", r"run\.epochs must be above 0, got nan"),
        ("[run]\nmax_steps = -1", r"run\.max_steps must be at least 0, got -1"),
        ("[run]\nout = ' '", r"run\.out must name a folder, got ' '"),
        ("[base]\ndevice = 'mps'", r"base\.device must be cpu, cuda or cuda:NUMBER, got 'mps'"),
        ("[base]\ndtype = 'float32'", r"base\.dtype must be one of '', fp32, bf16, fp16, got 'float32'"),
        ("[base]\nweights = 'nf4-q'", r"base\.weights must be one of .*nf4-dq.*, got 'nf4-q'"),
        ("[adapter]\nrank = 0", r"adapter\.rank must be at least 1 and whole, got 0"),
        ("[adapter]\ndropout = 1.0", r"adapter\.dropout must be in \[0, 1\), got 1\.0"),
        ("[adapter]\ntargets = 'q'", r"adapter\.targets: unknown linear 'q'"),
        ('[data]\ntrain = "C:\\data\\new"', r"not TOML: .*a path with \\ stands in single quotes"),
        ("[optimizer]\nlr = 0.0", r"optimizer\.lr must be above 0, got 0\.0"),
        ("[optimizer]\nbetas = [0.9]", r"optimizer\.betas must be two numbers in \[0, 1\), got \[0\.9\]"),
        ("[optimizer]\nlora_plus = -1", r"optimizer\.lora_plus must be above 0, got -1\.0"),
        ("[optimizer]\nstates = '4bit'", r"optimizer\.states must be one of fp32, 8bit, paged, paged-8bit, got '4bit'"),
        ("[base]\nshape = '8b'", r"base\.shape must be one of '', 7b, 13b, 70b, got '8b'"),
        ("[run]\nkeep = 0", r"run\.keep must be at least 1, got 0"),
        ("[watch]\nevery = 5", r"watch\.every needs data\.validation, or watch\.held_out"),
        ("[watch]\ntrackers = ['mlflow']", r"watch\.trackers must be one of tensorboard, wandb, trackio, got 'mlflow'"),
        ("[data]\ntemplate = 'chatml'", r"data\.template must be one of alpaca, .*, plain, chat, got 'chatml'"),
        ("[data]\npack = 512", r"data\.pack must be 0 or at least data\.max_tokens, got 512 and 1024"),
        ("[data]\npack = -1", r"data\.pack must be 0 or at least data\.max_tokens, got -1 and 1024"),
        ("[data]\npack = 1024\ngroup_by_length = true", r"data\.group_by_length must be false with data\.pack"),
        ("run = 3", r"run must be a table, got 3"),
        ("[run", r"not TOML"),
    ],
)
def test_a_mistake_is_refused_with_file_table_and_key(tmp_path: Path, text, message) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        TrainConfig.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"an override is table\.key=value"):
        TrainConfig.read(write(tmp_path, ""), ["epochs=3"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.toml: no such file"):
        TrainConfig.read(tmp_path / "nowhere.toml")


def test_a_file_may_begin_with_a_byte_order_mark_and_end_its_lines_as_windows_does(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf[run]\r\nepochs = 2\r\n")
    assert TrainConfig.read(path).run.epochs == 2


@pytest.mark.parametrize(
    ("encoding", "message"),
    [("utf-16", r"run\.toml: must be in UTF-8, is in UTF-16"), ("latin-1", r"run\.toml:2: must be .*, got byte 0xfc")],
)
def test_another_encoding_is_named_with_its_line(tmp_path: Path, encoding, message) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes("[adapter]\nname = 'x'  # für Müller\n".encode(encoding))
    with pytest.raises(ValueError, match=message):
        TrainConfig.read(path)


def test_epochs_may_be_a_fraction_and_stay_whole_where_they_are(tmp_path: Path) -> None:
    assert TrainConfig.read(write(tmp_path, "[run]\nepochs = 0.5")).run.epochs == 0.5
    assert repr(TrainConfig.read(write(tmp_path, "[run]\nepochs = 3")).to_dict()["run"]["epochs"]) == "3"


def test_a_seed_may_be_as_large_as_a_time_in_nanoseconds() -> None:
    config = TrainConfig.from_dict({"run": {"seed": 1764408000000000000}})
    assert len(epoch_batches([(1,), (2,), (3,)], 2, config.run.seed, 5)) == 2
