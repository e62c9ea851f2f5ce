"""From a config to a hat: which files of entries a run takes, and what it says of them."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from lowrank.atomic_io import sha256_of
from lowrank.checkpoints.load import load
from lowrank.checkpoints.sidecar_files import RECORD_FILE
from lowrank.cli import main
from lowrank.data.documents.document import make_documents, write_jsonl
from lowrank.data.mixture.rows import MixtureRow, write_rows
from lowrank.train.config import TrainConfig
from lowrank.train.from_config import train_from_config

ROWS = [MixtureRow(f"tfns-{i}", "tfns", "What is the sentiment?", f"up {i}%", "positive", "positive") for i in range(4)]


def config(data: Path, out: Path) -> TrainConfig:
    return TrainConfig.from_dict(
        {"adapter": {"rank": 1}, "data": {"train": str(data)}, "run": {"out": str(out), "epochs": 1}}
    )


@pytest.mark.slow
def test_a_mixture_is_learned_from_like_documents(tmp_path: Path) -> None:
    write_rows(tmp_path / "mixture.jsonl", ROWS)
    write_jsonl(tmp_path / "documents.jsonl", make_documents(2, seed=1, split="train"))
    for name, entries in (("mixture", 4), ("documents", 2)):
        result = train_from_config(config(tmp_path / f"{name}.jsonl", tmp_path / name), progress=False)
        provenance = json.loads((result.adapter / RECORD_FILE).read_text())
        assert provenance["data"]["entries"] == entries


@pytest.mark.slow
def test_a_hat_records_everything_it_came_from(tmp_path: Path, embedded) -> None:
    write_rows(tmp_path / "data.jsonl", ROWS)
    run = config(tmp_path / "data.jsonl", tmp_path / "out")
    result = train_from_config(run, progress=False)
    record = json.loads((result.adapter / RECORD_FILE).read_text())
    base = load(embedded)
    assert record["base"] == {**base.source, "weights": "nf4-dq", "rope_layout": "interleaved"}
    assert record["file_rope_layout"] == "half"
    assert record["weights_sha256"] == sha256_of(result.adapter / "adapter_model.safetensors")
    assert record["tokenizer_sha256"] == sha256_of(embedded / "tokenizer.model")
    assert record["data"]["sha256"] == sha256_of(tmp_path / "data.jsonl")
    assert (record["seed"], record["training"]) == (0, run.to_dict())
    again = train_from_config(config(tmp_path / "data.jsonl", tmp_path / "again"), progress=False)
    other = json.loads((again.adapter / RECORD_FILE).read_text())
    assert other["data"] == record["data"] and other["weights_sha256"] == record["weights_sha256"]
    assert other["config_sha256"] != record["config_sha256"]  # it wrote to another folder
    write_rows(tmp_path / "data.jsonl", ROWS[:3])
    changed = train_from_config(run, overwrite=True, progress=False)
    fewer = json.loads((changed.adapter / RECORD_FILE).read_text())["data"]
    assert fewer["examples_sha256"] != record["data"]["examples_sha256"]


@pytest.mark.slow
def test_a_hat_of_the_models_own_chat_template_is_worn_with_it_alone(tmp_path: Path, embedded, capsys) -> None:
    base, facts = tmp_path / "base", tmp_path / "facts.txt"
    shutil.copytree(embedded, base)
    (base / "chat_template.jinja").write_text(
        "{% for message in messages %}{% if message.role == 'user' %}"
        "{{ bos_token ~ '[INST] ' ~ message.content ~ ' [/INST]' }}"
        "{% else %}{{ ' ' ~ message.content ~ ' ' ~ eos_token }}{% endif %}{% endfor %}"
    )
    facts.write_text("company: Acme Ltd\nrevenue: $12.5 million\n")
    write_rows(tmp_path / "data.jsonl", ROWS)
    run = config(tmp_path / "data.jsonl", tmp_path / "out").to_dict()
    run["base"]["path"], run["data"]["template"] = str(base), "chat"
    hat = train_from_config(TrainConfig.from_dict(run), progress=False).adapter
    record = json.loads((hat / RECORD_FILE).read_text())
    assert record["template"]["text"] == (base / "chat_template.jinja").read_text()
    about = ["--adapter", f"hat={hat}", "--facts", str(facts), "--kind", "earnings_summary", "--max-new-tokens", "3"]
    assert main(["generate", str(base), "--dtype", "fp32", *about, "--grounded"]) == 0
    assert (
        main(["eval", str(base), *about[:2], "--weights", "nf4-dq", "--n", "1", "--out", str(tmp_path / "eval")]) == 0
    )
    capsys.readouterr()
    assert main(["generate", "embedded", *about]) == 2
    told = capsys.readouterr().err
    assert "trained with the template 'chat', the chat template of its base" in told.splitlines()[-1]
    assert main(["generate", "embedded", *about[2:], "--template", "chat"]) == 2
    assert "template chat is the model's own chat template" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["", "{"], "data.jsonl:2: must be JSON, got none"),
        (["[1]"], "data.jsonl: the format must be told by its keys, .*, got no objects"),
        ([json.dumps(asdict(ROWS[0]) | {"output": 1})], "data.jsonl:1: output: must be a text, got 1"),
    ],
)
def test_a_broken_first_line_is_told_with_its_place(lines: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        train_from_config(config(tmp_path / "data.jsonl", tmp_path / "out"))
