"""The command line as a newcomer meets it: what works, and what one line says when something is wrong."""

import json
import re
import shutil
import signal
import sys
import time

import pytest
import torch
from child_process import finish, start

from lowrank.cli import VERBS, main

RUN = """
[base]
path = "{base}"
[adapter]
name = "finance"
rank = 2
[data]
train = "{data}"
[run]
out = "{out}"
epochs = 1
"""


@pytest.fixture
def lowrank(capsys):
    """Runs a command in this process: (status, standard output, standard error without progress bars)."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, "\n".join(line for line in err.splitlines() if "\r" not in line and "it/s" not in line)

    return run


@pytest.fixture
def mistake(lowrank):
    """Runs a command that has to fail with exit status 2 and one line; returns the line."""

    def run(*arguments):
        status, _, err = lowrank(*arguments)
        lines = [line for line in err.splitlines() if line.startswith("lowrank")]
        assert status == 2, err
        assert len(lines) == 1, err
        assert "Traceback" not in err
        return lines[0]

    return run


@pytest.fixture
def meta(golden, tmp_path):
    """A copy of a two-shard Meta folder, to be damaged."""
    return shutil.copytree(golden / "meta-tiny-gqa-mp2", tmp_path / "meta")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, embedded):
    """A hat for the embedded base, made by the command line itself: (its folder, the run's folder)."""
    out = tmp_path_factory.mktemp("run")
    assert main(["data", "documents", str(out / "data"), "--n", "10"]) == 0
    (out / "run.toml").write_text(RUN.format(base="embedded", data=out / "data/train.jsonl", out=out / "out"))
    assert main(["train", str(out / "run.toml")]) == 0
    return out / "out" / "hat", out


# What works


def test_the_verbs_are_listed_and_each_shows_an_example(lowrank):
    status, out, _ = lowrank("--help")
    assert status == 0
    for name in VERBS:
        assert re.search(rf"^    {name}\b", out, re.MULTILINE)
        assert f"example:\n  lowrank {name} " in lowrank(name, "--help")[1]


@pytest.mark.slow
def test_documents_are_made_the_same_every_time(lowrank, tmp_path):
    for folder in ("a", "b"):
        assert lowrank("data", "documents", tmp_path / folder, "--n", 20)[0] == 0
    for split, count in (("train", 20), ("validation", 50), ("test", 200)):
        one, other = ((tmp_path / folder / f"{split}.jsonl").read_bytes() for folder in ("a", "b"))
        assert one == other
        assert one.count(b"\n") == count


@pytest.mark.long
def test_a_hat_is_trained_evaluated_and_used_from_the_command_line(lowrank, trained, tmp_path):
    hat, _ = trained
    use = ("--adapter", f"finance={hat}")
    more = ("--n", 2, "--weights", "nf4-dq,fp32", "--json", "--out", tmp_path / "eval")
    status, out, _ = lowrank("eval", "embedded", *use, *more)
    rows = json.loads(out)["cells"]
    assert status == 0
    assert [(row["adapter"], row["weights"], row["n"]) for row in rows] == [
        (None, "nf4-dq", 2), ("finance", "nf4-dq", 2), (None, "fp32", 2), ("finance", "fp32", 2)
    ]  # fmt: skip
    assert rows[1]["loss"] < rows[0]["loss"]
    (tmp_path / "facts.txt").write_text("company: Aldane Foods Ltd\nrevenue: $12.5 million\n")
    facts = ("--facts", tmp_path / "facts.txt", "--kind", "earnings_summary", "--max-new-tokens", 5, "--dtype", "fp32")
    worn, bare = lowrank("generate", "embedded", *use, *facts), lowrank("generate", "embedded", *facts)
    assert worn[0] == bare[0] == 0
    assert lowrank("generate", "embedded", *use, "--use", "none", *facts)[1] == bare[1]
    assert lowrank("generate", "embedded", *use, "--use", "finance=0.0", *facts)[1] == bare[1]


@pytest.mark.slow
def test_a_hat_records_its_template_and_is_used_with_no_other(lowrank, mistake, trained, tmp_path):
    hat, _ = trained
    record = json.loads((hat / "lowrank.json").read_text())
    assert record["template"] == {"name": "alpaca", "version": 1}
    assert record["data"]["left_out"] == []
    (tmp_path / "facts.txt").write_text("company: Aldane Foods Ltd\n")
    facts = ("--facts", tmp_path / "facts.txt", "--kind", "earnings_summary", "--max-new-tokens", 5, "--dtype", "fp32")
    use = ("--adapter", f"finance={hat}")
    refused = "trained with the template 'alpaca', asked for 'plain'"
    assert refused in mistake("generate", "embedded", *use, *facts, "--template", "plain")
    assert refused in mistake("eval", "embedded", *use, "--n", 1, "--template", "plain")
    assert "--template is of --facts" in mistake("generate", "embedded", "--prompt", "x", "--template", "plain")
    default, own, other = (
        lowrank("generate", "embedded", *more, *facts)[1]
        for more in (use, (*use, "--template", "alpaca"), (*use, "--use", "none", "--template", "plain"))
    )
    assert default == own != other


@pytest.mark.slow
def test_entries_that_are_left_out_are_told_and_recorded(lowrank, tmp_path):
    (tmp_path / "run.toml").write_text(RUN.format(base="embedded", data="documents", out=tmp_path / "out"))
    status, out, err = lowrank("train", tmp_path / "run.toml", "data.max_tokens=240", "data.pack=480")
    record = json.loads((tmp_path / "out/hat/lowrank.json").read_text())["data"]
    assert status == 0
    assert record["entries"] + len(record["left_out"]) == 100
    assert f"{len(record['left_out'])} of 100 entries have over 240 tokens and are left out: " in err
    assert record["left_out"][0] in err and f"and {len(record['left_out']) - 10} more" in err
    assert re.search(r"[\d.]+% of the positions filling", out)


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint(lowrank, trained):
    _, folder = trained
    status, out, _ = lowrank("train", folder / "run.toml", "--resume")
    assert status == 0
    assert "nats a token" in out


def test_a_quantized_folder_is_loaded_as_it_is(lowrank, tmp_path, golden):
    status, out, _ = lowrank("quantize", golden / "meta-tiny-mha", tmp_path / "q", "--weights", "nf4")
    assert status == 0 and "nf4, model.safetensors" in out
    reference = golden / "meta-tiny-mha/reference.safetensors"
    status, out, _ = lowrank("parity", tmp_path / "q", reference, "--json")
    assert status == 1  # 4 bits are not full precision, and parity says so
    assert json.loads(out)["weights"] == "nf4"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "options"),
    [
        ("meta-tiny-mha", ["--weights", "fp32"]),
        ("meta-tiny-mha", ["--weights", "fp32", "--key", "logits_incremental", "--prefill", "17"]),
        ("meta-tiny-gqa-mp2", ["--weights", "fp32"]),
        ("meta-tiny-gqa-mp2", ["--weights", "fp32", "--key", "logits_incremental", "--prefill", "17"]),
        ("hf-tiny-qlora/base", ["--weights", "fp32", "--key", "logits_fp32"]),
        ("hf-tiny-qlora/base", ["--weights", "fp32", "--key", "greedy"]),
        ("hf-tiny-qlora/base", ["--weights", "nf4", "--key", "logits_nf4"]),
        ("hf-tiny-qlora/base", ["--weights", "nf4-dq", "--key", "logits_nf4_dq", "--tolerance", "1e-2"]),
        ("hf-tiny-qlora/base-bnb-nf4-dq", ["--key", "logits_nf4_dq"]),
        ("hf-tiny-qlora/base-bnb-nf4-dq", ["--key", "logits_nf4_dq", "--weights", "dequant:nf4-dq"]),
        ("hf-tiny-qlora/base", ["--weights", "fp32", "--key", "logits_fp32_adapter_end", "--adapter", "adapter-end"]),
        ("hf-tiny-qlora/base-bnb-nf4-dq", ["--key", "logits_nf4_dq_adapter_end", "--adapter", "adapter-end"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_parity_shows_every_stored_reference(lowrank, golden, base, options):
    folder = golden / base.partition("/")[0]
    options = [str(folder / "adapter-end") if option == "adapter-end" else option for option in options]
    status, out, _ = lowrank("parity", golden / base, folder / "reference.safetensors", *options, "--json")
    assert status == 0, out


@pytest.mark.slow
def test_parity_shows_the_training_curve(lowrank, golden):
    folder = golden / "hf-tiny-qlora"
    start = ("--adapter", folder / "adapter-start", "--key", "train_loss")
    status, out, _ = lowrank("parity", folder / "base-bnb-nf4-dq", golden / "qlora-curve.safetensors", *start, "--json")
    assert status == 0, out
    assert json.loads(out)["steps"] == 20


def test_params_shows_the_write_ups_figure_and_ours(lowrank):
    _, out, _ = lowrank("inspect", "params", "--d", 10000)
    assert "10,000 x 8" in out and "8 x 10,000" in out
    assert "trainable 160,000 of 100,000,000: 0.1600% (0.0016 as a fraction)" in out
    assert '"0.016%"; it is 0.16 %' in out


@pytest.mark.slow
def test_sizes_shows_both_hats_and_what_size_follows_from(lowrank):
    _, out, _ = lowrank("inspect", "sizes")
    assert "3,238,002,688" in out and "13,476,831,232" in out
    assert "79.95" in out and "67.11" in out and "+0.16" in out
    assert "never from the data set" in out
    rows = json.loads(lowrank("inspect", "sizes", "--json", "--adapter-bytes", "80MB")[1])
    assert {shape["bytes"] for shape in rows["adapters"]["80000000"]} == {79_953_920}


# What goes wrong


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["generate", "embedded"], "one of the arguments --prompt --facts is required"),
        (["generate", "embedded", "--prompt", "x", "--adapter", "hat"], "must be NAME=DIR, got 'hat'"),
        (["generate", "embedded", "--prompt", "x", "--use", "nobody"], "unknown adapter 'nobody'"),
        (["generate", "embedded", "--prompt", "x", "--weights", "nf5"], "weights must be one of .*got 'nf5'"),
        (["generate", "embedded", "--prompt", "x", "--top-p", "0"], r"--top-p must be in \(0, 1\], got 0"),
        (
            ["generate", "embedded", "--facts", "none.txt", "--kind", "poem"],
            "--kind must be FILE.toml, or one of .*got 'poem'",
        ),
        (["generate", "no/such/base", "--prompt", "x"], "no/such/base"),
        (["eval", "embedded", "--n", "0"], "at least one document"),
        (
            ["inspect", "sizes", "--model", "8b"],
            "--model must be one of 7b, 13b, 70b, embedded, a folder, or its config, got '8b'",
        ),
        (["inspect", "sizes", "--adapter-bytes", "big"], "must be a size such as 80MB, got 'big'"),
        (["inspect", "params", "--targets", "wz"], "unknown linear 'wz'"),
        (["inspect", "params", "--rank", "0"], "at least 1, got 0"),
        (["data", "documents", "x", "--n", "0"], "--n must be at least 1, got 0"),
        (["generate", "embedded", "--prompt", "x", "--device", "cuda:64"], "device 'cuda:64': torch .* sees"),
        (["generate", "embedded", "--prompt", "x", "--device", "abacus"], "device 'abacus'"),
        (["train", "nowhere.toml"], "nowhere.toml: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_line(mistake, arguments, expected):
    assert re.search(expected, mistake(*arguments))


def test_a_missing_shard(mistake, meta):
    (meta / "consolidated.00.pth").unlink()
    assert "shard consolidated.00.pth is missing" in mistake("quantize", meta, meta / "out")


def test_the_last_shard_missing(mistake, meta):
    (meta / "consolidated.01.pth").unlink()
    line = mistake("quantize", meta, meta / "out")
    assert "tok_embeddings.weight" in line and "a shard is missing" in line


def test_a_truncated_pth(mistake, meta):
    path = meta / "consolidated.01.pth"
    path.write_bytes(path.read_bytes()[:5000])
    assert "consolidated.01.pth: not a whole .pth file" in mistake("quantize", meta, meta / "out")


def test_a_pth_that_holds_more_than_tensors(mistake, meta):
    torch.save({"tok_embeddings.weight": torch.zeros(2), "run_me": print}, meta / "consolidated.00.pth")
    assert "must hold tensors only" in mistake("quantize", meta, meta / "out")


def test_a_shape_that_does_not_fit_params_json(mistake, meta):
    params = json.loads((meta / "params.json").read_text())
    (meta / "params.json").write_text(json.dumps({**params, "n_kv_heads": 4}))
    line = mistake("quantize", meta, meta / "out")
    assert "layers.0.attention.wk.weight" in line and "params.json is another model's" in line


def test_a_tokenizer_of_another_size(mistake, meta, embedded):
    shutil.copyfile(embedded / "tokenizer.model", meta / "tokenizer.model")
    line = mistake("generate", meta, "--prompt", "x")
    assert "tokenizer.model: has 2048 pieces, the embedding has 512 rows" in line


def test_a_folder_without_a_tokenizer(mistake, meta):
    assert "has no tokenizer: neither tokenizer.model nor tokenizer.json" in mistake("generate", meta, "--prompt", "x")


@pytest.mark.slow
def test_a_hat_for_another_base(mistake, trained, golden):
    hat, _ = trained
    reference = golden / "meta-tiny-mha/reference.safetensors"
    line = mistake("parity", golden / "meta-tiny-mha", reference, "--adapter", hat)
    assert re.search(r"made for the base [0-9a-f]{16}, this base is [0-9a-f]{16}", line)


def test_a_config_with_a_misspelt_key(mistake, tmp_path):
    (tmp_path / "run.toml").write_text("[optimizer]\nlerning_rate = 1e-3\nshedule = 'cosine'\n")
    assert "optimizer: unknown key 'lerning_rate'" in mistake("train", tmp_path / "run.toml")


def test_a_folder_with_other_files_is_not_replaced(mistake, meta):
    (meta / "keep.txt").write_text("mine")
    assert "holds consolidated.00.pth, which would be lost" in mistake("quantize", meta, meta)
    assert (meta / "keep.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_run_that_is_there_is_not_overwritten(mistake, trained):
    _, folder = trained
    assert "holds a run already" in mistake("train", folder / "run.toml")


def test_a_broken_line_of_data(mistake, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"id": 3\n')
    assert "data.jsonl:1: must be JSON" in mistake("eval", "embedded", "--data", tmp_path / "data.jsonl")
    (tmp_path / "data.jsonl").write_text('{"instruction": "a", "output": "b"}\n{"id": 3}\n')
    assert "data.jsonl:2: instruction: must be" in mistake("eval", "embedded", "--data", tmp_path / "data.jsonl")


def test_debug_shows_where_an_error_arose(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        main(["train", str(tmp_path / "run.toml"), "--debug"])


@pytest.mark.long
def test_ctrl_c_leaves_the_last_checkpoint_whole(tmp_path):
    (tmp_path / "run.toml").write_text(RUN.format(base="embedded", data="documents", out=tmp_path / "out"))
    command = [sys.executable, "-m", "lowrank", "train", tmp_path / "run.toml"]
    process = start(
        *[*command, "run.epochs=500", "run.checkpoint_every=1"],
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job of a shell ignores it
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out/checkpoints").glob("step-*.pt")):
        if process.poll() is not None or time.monotonic() > deadline:
            finish(process, limit=0)
            pytest.fail("it ended before a checkpoint was written")
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    done = finish(process, limit=60, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("run.checkpoint_every=1 --resume") and "Traceback" not in done.stderr
    newest = max((tmp_path / "out/checkpoints").glob("step-*.pt"))
    assert len(torch.load(newest, weights_only=True)["log"]) >= 1
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")] == []
