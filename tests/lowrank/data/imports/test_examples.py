"""The one reader of files to learn from: whatever people have, a check and a training run say the same of it."""

import json
from pathlib import Path

import pytest
from data_cases import CASES, CHAT, GOOD, Case, lines

from lowrank.cli import main
from lowrank.data.imports.examples import Fault, read_conversations, read_examples, summary
from lowrank.model.tokenizer import Tokenizer
from lowrank.train.config import TrainConfig
from lowrank.train.data import read_run_data


def train_refusal(path: Path, case: Case, tokenizer: Tokenizer) -> str:
    """The line by which a training run refuses a file, "" if it takes it."""
    preference = {"loss": "dpo"} if case.is_preference else {}
    data = {"train": str(path), "template": case.template}
    config = TrainConfig.from_dict({"data": data, "preference": preference})
    try:
        read_run_data(config, tokenizer)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_check_refuses_exactly_what_train_refuses(
    name: str, tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    monkeypatch.chdir(tmp_path)
    Path(case.name).write_bytes(case.data)
    refusal = train_refusal(Path(case.name), case, tokenizer)
    kind = ["--preference"] if case.is_preference else []
    status = main(["data", "check", case.name, "--template", case.template, *kind])
    told = capsys.readouterr()
    assert (status != 0) == bool(refusal) == bool(case.refusal), (refusal, told.out)
    assert case.refusal in refusal and "\n" not in refusal
    # Read as a whole or not at all, a fault of the file is one line; of rows, a line a kind, and the count of them.
    if status == 2:
        assert told.err == f"lowrank: {refusal.removeprefix('data.train: ')}\n"
    elif status == 1 and "none of" not in refusal:
        first = refusal.removeprefix("data.train: ").partition("; data.skip_bad")[0].partition(" (and ")[0]
        assert told.out.startswith(first), (first, told.out)


def test_where_answers_are_measured_preferences_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(CASES["preferences"].data)
    chosen, rejected = read_conversations(tmp_path / "a.jsonl")[0].alternatives
    assert (chosen.turns[-1].output, rejected.turns[-1].output) == ("So.", "No.")
    with pytest.raises(ValueError, match="holds preferences, chosen and rejected"):
        read_conversations(tmp_path / "a.jsonl", is_preference=False)


def test_a_system_prompt_a_history_and_a_weight_are_learned_as_they_say(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines({**GOOD[0], "system": "In French.", "history": [["Before?", "Then."]]}))
    (said,) = read_examples(path, "alpaca").conversations
    assert said.system == "In French."
    assert [(turn.instruction, turn.output) for turn in said.turns] == [
        ("Before?", "Then."),
        (GOOD[0]["instruction"], GOOD[0]["output"]),
    ]
    turns = [
        {"from": "human", "value": "1?"},
        {"from": "gpt", "value": "bad", "weight": 0},
        {"from": "human", "value": "2?"},
        {"from": "gpt", "value": "good", "train": True},
    ]
    path.write_bytes(lines({"conversations": turns, "system": "Be brief."}))
    (said,) = read_examples(path, "llama2-chat").conversations
    assert (said.system, [turn.learned for turn in said.turns]) == ("Be brief.", [False, True])


def test_of_a_prompt_in_messages_only_the_completion_is_learned(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    prompt = [*CHAT[0]["messages"], {"role": "user", "content": "And?"}]
    path.write_bytes(lines({"prompt": prompt, "completion": [{"role": "assistant", "content": "So."}]}))
    (said,) = read_examples(path, "alpaca").conversations
    assert [(turn.output, turn.learned) for turn in said.turns] == [("It is 0.", False), ("So.", True)]


def test_faults_of_one_kind_are_one_line_with_their_count_and_first_places(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    bad = [{"instruction": "a", "output": number} for number in range(7)]
    turn = {"role": "user", "content": 5}
    path.write_bytes(lines(*GOOD, *bad, 7))
    assert summary(read_examples(path, "alpaca").faults) == [
        "5: output: must be a text, got 0 (7 times, in 5, 6, 7, 8, 9, ...)",
        "12: must be an object, got 7",
    ]
    path.write_bytes(lines(*CHAT, {"messages": [turn]}, {"messages": [*CHAT[0]["messages"], turn]}))
    assert summary(read_examples(path, "alpaca").faults) == [
        "4: messages[1].content: must be a text, got 5 (2 times, in 4, 5)"
    ]


def test_a_fault_is_its_place_its_rule_and_its_value() -> None:
    fault = Fault.of("3", ValueError("messages[2].content[1].text: must be a text, got 5, got twice"))
    assert fault == Fault("3", "messages[2].content[1].text: must be a text", "5, got twice")
    assert fault.kind == "messages.content.text: must be a text"


def test_keys_that_nothing_is_learned_from_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(*({**row, "source": "x", "id": "y"} for row in GOOD), {**GOOD[0], "score": 1, "tag": None}))
    assert read_examples(path, "alpaca").unread == {"source": 4, "score": 1}


def test_the_check_of_an_entry_names_the_figures_that_are_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lowrank.data.documents.document import make_documents

    rows = [entry.to_json() for entry in make_documents(3, seed=7, split="train", kinds=["fund_fact_sheet"])]
    for row in rows:
        del row["sha256"]
        row["output"] += "\nThe fee of $9.9 million is high.\n"
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["data", "check", str(tmp_path / "a.jsonl")]) == 0
    (note, _) = capsys.readouterr().out.splitlines()
    assert note.endswith("1: note: output: each figure must be in the facts, got $9.9 million (3 times, in 1, 2, 3)")
