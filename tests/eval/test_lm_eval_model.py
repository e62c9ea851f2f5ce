"""lm-evaluation-harness on our models: the three things it asks, and whole tasks of all kinds from local files."""

import json
from pathlib import Path

import pytest
import torch
from peers import Peer

import lowrank
from lowrank.model.generate import generate

pytestmark = pytest.mark.slow
evaluator, instance, ours, tasks = map(
    Peer, ("lm_eval.evaluator", "lm_eval.api.instance", "lowrank.eval.lm_eval_model", "lm_eval.tasks")
)
RECORD = "revenue: $12.5 million\ncash: $3.1 million\nRevenue was"


@pytest.fixture(scope="module")
def harness(embedded: Path, tokenizer):
    return ours.HarnessModel(lowrank.load(embedded, "fp32"), tokenizer, batch_size=3)


def requests(kind, *arguments):
    return [instance.Instance(kind, {}, given, index) for index, given in enumerate(arguments)]


def scores(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0].double().log_softmax(-1)


def by_hand(harness, context, continuation):
    """log p of the tokens behind those of the context, and whether each is the likeliest."""
    ids = harness.pieces.encode(context + continuation, bos=True, eos=False)
    first = len(harness.pieces.encode(context, bos=True, eos=False))
    found = scores(harness.model, ids)
    places = range(first, len(ids))
    likeliest = all(found[place - 1].argmax() == ids[place] for place in places)
    return sum(found[place - 1, ids[place]].item() for place in places), likeliest


def test_a_continuation_behind_its_context(harness) -> None:
    asked = [(RECORD, " $12.5 million."), (RECORD, " $99.1 million."), ("", "Revenue"), ("cash: ", "$3.1"), ("a", " b")]
    found = harness.loglikelihood(requests("loglikelihood", *asked), disable_tqdm=True)
    for (context, continuation), (score, likeliest) in zip(asked, found, strict=True):
        if context.endswith(" "):
            context, continuation = context[:-1], f" {continuation}"
        expected, greedy = by_hand(harness, context, continuation)
        assert score == pytest.approx(expected, abs=1e-4)
        assert likeliest == greedy
    assert found[0][0] > found[1][0]


def test_a_text_is_scored_whole_also_when_it_is_longer_than_the_context(embedded: Path, tokenizer) -> None:
    model = lowrank.load(embedded, "fp32")
    text = "Revenue was $12.5 million. Cash was $3.1 million. Debt was $8.8 million."
    asked = requests("rolling", (text,))
    (whole,) = ours.HarnessModel(model, tokenizer).loglikelihood_rolling(asked, disable_tqdm=True)
    ids = tokenizer.encode(text, bos=True, eos=False)
    found = scores(model, ids)
    assert whole == pytest.approx(sum(found[i, ids[i + 1]].item() for i in range(len(ids) - 1)), abs=1e-3)
    short = ours.HarnessModel(model, tokenizer)
    short.max_length = 8
    (cut,) = short.loglikelihood_rolling(requests("rolling", (text,)), disable_tqdm=True)
    expected, done = 0.0, 0
    while done < len(ids) - 1:
        end = min(len(ids) - 1, done + 8)
        window = ids[max(0, end - 8) : end + 1]
        part = scores(model, window)
        expected += sum(part[i, window[i + 1]].item() for i in range(len(window) - 1 - (end - done), len(window) - 1))
        done = end
    assert cut == pytest.approx(expected, abs=1e-3)


def test_an_answer_ends_at_its_stop_string_or_its_limit(harness) -> None:
    asked = [(RECORD, {"until": ["."], "max_gen_toks": 12}), ("cash", {"until": [], "max_gen_toks": 5})]
    asked.append(("revenue: $1.5 million\nRevenue was", {"until": ["."], "max_gen_toks": 12}))
    found = harness.generate_until(requests("generate_until", *asked), disable_tqdm=True)
    for (prompt, options), text in zip(asked, found, strict=True):
        whole = generate(harness.model, harness.pieces, prompt, max_new_tokens=options["max_gen_toks"], answer=True)[0]
        stop = (options["until"] or ["never"])[0]
        assert text == whole.split(stop)[0]


def test_generation_stops_early_once_every_row_has_its_stop(harness, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    from lowrank.model import generate as room

    original = room.generate_tokens

    def counted(*args, **options):
        for tokens in original(*args, **options):
            steps.append(tokens)
            yield tokens

    monkeypatch.setattr(room, "generate_tokens", counted)
    harness.generate_until(requests("generate_until", (RECORD, {"until": ["$", " "], "max_gen_toks": 200})), True)
    assert len(steps) < 8


def test_sampling_is_done_where_a_task_asks_for_it(harness) -> None:
    (text,) = harness.generate_until(
        requests("generate_until", ("Revenue", {"do_sample": True, "temperature": 1.5, "max_gen_toks": 20})), True
    )
    expected = generate(harness.model, harness.pieces, "Revenue", max_new_tokens=20, temperature=1.5, answer=True)[0]
    assert text == expected


@pytest.mark.slow
def test_what_is_not_known_or_does_not_fit_is_told(harness) -> None:
    with pytest.raises(ValueError, match="no such option here: num_beams"):
        harness.generate_until(requests("generate_until", ("a", {"num_beams": 4})), True)
    with pytest.raises(ValueError, match=r"max_gen_toks must be in 1 \.\. 4095, got 5000"):
        harness.generate_until(requests("generate_until", ("a", {"max_gen_toks": 5000})), True)
    with pytest.warns(UserWarning, match="loses its beginning: 4095 fit"):
        harness.generate_until(requests("generate_until", ("a " * 5000, {"max_gen_toks": 1})), True)


ROWS = [
    {"q": RECORD, "choices": [" $12.5 million.", " $99.1 million."], "gold": 0, "text": "Revenue was $12.5 million."},
    {"q": "cash: $3.1 million\nCash was", "choices": [" $8.8 million.", " $3.1 million."], "gold": 1, "text": "Cash."},
]
TASKS = {
    "toy_choice": {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{choices}}",
                   "doc_to_target": "gold", "target_delimiter": "", "metric_list": [{"metric": "acc"}]},
    "toy_rolling": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
                    "metric_list": [{"metric": "bits_per_byte"}]},
    "toy_until": {"output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{choices[gold]}}",
                  "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12},
                  "metric_list": [{"metric": "exact_match"}]},
}  # fmt: skip


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, task in TASKS.items():
        files = {"data_files": {"test": str(folder / "rows.jsonl")}, "cache_dir": str(folder / "cache")}
        whole = {"task": name, "dataset_path": "json", "dataset_kwargs": files, "test_split": "test", **task}
        (folder / f"{name}.yaml").write_text(json.dumps(whole))  # JSON is YAML
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the harness's own libraries
def test_whole_tasks_of_every_kind_run_on_it_from_local_files(harness, task_folder) -> None:
    ours_alone = tasks.TaskManager(include_path=str(task_folder), include_defaults=False)
    found = evaluator.simple_evaluate(harness, tasks=[*TASKS], task_manager=ours_alone, bootstrap_iters=10)["results"]
    assert found["toy_choice"]["acc,none"] == 1.0
    (nats,) = [sum(harness.loglikelihood_rolling(requests("r", *((row["text"],) for row in ROWS)), True))]
    count = sum(len(row["text"].encode()) for row in ROWS)
    assert found["toy_rolling"]["bits_per_byte,none"] == pytest.approx(-nats / count / 0.6931471805599453)
    assert 0 <= found["toy_until"]["exact_match,none"] <= 1
