"""OpenAI's API: what is honoured, what is refused by name, usage, streams, facts."""

import json
from typing import Any

import pytest
from served import FACTS, TOKEN, Served

from lowrank.adapters import using_adapter
from lowrank.data.encoding.template import Conversation, Turn
from lowrank.model.generate import complete
from lowrank.serve.openai_parameters import INERT
from lowrank.serve.prompts import conversation_prompt
from lowrank.serve.shelf import Shelf

MEMO = {"messages": [], "facts": FACTS, "kind": "earnings_summary", "max_tokens": 60}


def events(text: str) -> list[Any]:
    """The values of a stream, which ends with [DONE]."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line and not line.startswith(":")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def alone(shelf: Shelf, adapter: str | None, conversation: Conversation, tokens: int) -> Any:
    """The text that the model writes by itself."""
    choice = shelf.choice(adapter or "embedded")
    prompt, answer = conversation_prompt(choice, conversation)
    with using_adapter(choice.base.model, adapter):
        return complete(choice.base.model, choice.base.tokenizer, [prompt], max_new_tokens=tokens, answer=answer)[0]


@pytest.mark.slow
def test_models_are_the_base_and_its_hats(served: Served) -> None:
    listed = served.client.get("/v1/models").json()
    assert listed["object"] == "list" and [one["id"] for one in listed["data"]] == ["embedded", "red", "blue"]
    assert served.client.get("/v1/models/red").json() == listed["data"][1]
    missing = served.client.get("/v1/models/green")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("model", ["embedded", "red", "blue"])
def test_a_chat_is_what_the_model_writes_in_its_hat(served: Served, shelf: Shelf, model: str) -> None:
    asked = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": "Write a "}, {"type": "text", "text": "sentence."}]},
    ]
    told = Conversation("", (Turn("Hello", output="Hello."), Turn("Write a sentence.")), "Be short.")
    answer = served.chat(model=model, messages=asked, max_tokens=20).json()
    expected = alone(shelf, None if model == "embedded" else model, told, 20)
    choice = answer["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": expected.text}
    assert choice["finish_reason"] == ("length" if expected.end == "max_new_tokens" else "stop")
    prompt = conversation_prompt(shelf.choice(model), told)[0]
    used = {"prompt_tokens": len(prompt), "completion_tokens": len(expected.tokens)}
    assert answer["usage"] == used | {"total_tokens": sum(used.values())}
    assert answer["model"] == model and answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-")


@pytest.mark.slow
def test_a_stream_has_the_text_of_the_answer_and_the_usage_if_it_is_wanted(served: Served) -> None:
    whole = served.chat(n=2, temperature=1, seed=7, max_tokens=30).json()
    streamed = served.chat(
        n=2, temperature=1, seed=7, max_tokens=30, stream=True, stream_options={"include_usage": True}
    )
    assert streamed.headers["content-type"].startswith("text/event-stream")
    chunks = events(streamed.text)
    texts, reasons, roles = ["", ""], [None, None], [None, None]
    for chunk in chunks[:-1]:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        roles[choice["index"]] = roles[choice["index"]] or choice["delta"].get("role")
        reasons[choice["index"]] = choice["finish_reason"]
    assert texts == [one["message"]["content"] for one in whole["choices"]]
    assert texts[0] != texts[1]
    assert reasons == [one["finish_reason"] for one in whole["choices"]] and roles == ["assistant"] * 2
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert "usage" not in served.chat(stream=True).text


@pytest.mark.slow
def test_a_completion_goes_on_from_texts_and_from_ids(served: Served, shelf: Shelf) -> None:
    base = shelf.bases[0]
    texts = ["The balance sheet", "The harbour was quiet"]
    ids = [base.tokenizer.encode(text, bos=True) for text in texts]
    body: dict[str, Any] = {"model": "blue", "max_tokens": 10, "temperature": 0}
    answers = [
        served.client.post("/v1/completions", json=body | {"prompt": prompt}).json()
        for prompt in (texts, ids, ids[0], texts[1])
    ]
    with using_adapter(base.model, "blue"):
        expected = [one.text for one in complete(base.model, base.tokenizer, texts, max_new_tokens=10)]
    written = [[choice["text"] for choice in answer["choices"]] for answer in answers]
    assert written == [expected, expected, expected[:1], expected[1:]]
    assert answers[0]["object"] == "text_completion"
    assert answers[0]["usage"]["prompt_tokens"] == sum(map(len, ids))


def test_probabilities_are_those_of_the_model_in_the_shapes_of_both_calls(served: Served, shelf: Shelf) -> None:
    base = shelf.bases[0]
    text = "The balance sheet"
    with using_adapter(base.model, "blue"):
        (expected,) = complete(base.model, base.tokenizer, [text], max_new_tokens=8, logprobs=3)
    body: dict[str, Any] = {"model": "blue", "max_tokens": 8, "temperature": 0, "prompt": text}
    choice = served.client.post("/v1/completions", json=body | {"logprobs": 3}).json()["choices"][0]
    found = choice["logprobs"]
    assert expected.logprobs is not None
    assert found["token_logprobs"] == [one.logprob for one in expected.logprobs]
    assert "".join(found["tokens"]) == choice["text"] == expected.text
    assert [choice["text"].startswith(*place) for place in zip(found["tokens"], found["text_offset"], strict=True)]
    for shown, one in zip(found["top_logprobs"], expected.logprobs, strict=True):
        assert sorted(shown.values(), reverse=True) == [value for _, value in one.top]
    plain = served.client.post("/v1/completions", json=body).json()["choices"][0]
    assert plain["logprobs"] is None and plain["text"] == choice["text"]

    chat = served.chat(logprobs=True, top_logprobs=2, max_tokens=8, temperature=0)
    (choice,) = chat.json()["choices"]
    content = choice["logprobs"]["content"]
    assert b"".join(bytes(one["bytes"]) for one in content).decode().removeprefix(" ") == choice["message"]["content"]
    assert all(one["top_logprobs"][0]["logprob"] == one["logprob"] and len(one["top_logprobs"]) == 2 for one in content)
    (streamed,) = [
        chunk["choices"][0]
        for chunk in events(served.chat(logprobs=True, top_logprobs=2, max_tokens=8, temperature=0, stream=True).text)
        if chunk["choices"][0]["finish_reason"]
    ]
    assert streamed["logprobs"] == choice["logprobs"]


def test_the_tokens_of_a_stop_text_have_no_probabilities(served: Served) -> None:
    body: dict[str, Any] = {"model": "blue", "max_tokens": 12, "temperature": 0, "prompt": "The balance sheet"}
    text = served.client.post("/v1/completions", json=body).json()["choices"][0]["text"]
    stop = text[len(text) // 2 :][:3]
    (choice,) = served.client.post("/v1/completions", json=body | {"stop": stop, "logprobs": 0}).json()["choices"]
    assert choice["finish_reason"] == "stop" and choice["text"] == text[: text.find(stop)]
    found = choice["logprobs"]
    assert "".join(found["tokens"]).startswith(choice["text"]) and found["top_logprobs"] == [{}] * len(found["tokens"])
    assert "".join(found["tokens"][:-1]) != choice["text"] and found["text_offset"][-1] < len(choice["text"])


@pytest.mark.slow
def test_facts_ground_the_text_and_the_answer_has_its_audit(served: Served) -> None:
    free = served.chat(**MEMO, grounded=False).json()
    answer = served.chat(**MEMO).json()
    (audit,) = answer["lowrank"]["audits"]
    assert audit["figures"] and {figure["state"] for figure in audit["figures"]} == {"right"}
    text = answer["choices"][0]["message"]["content"]
    for figure in audit["figures"]:
        assert text[figure["start"] : figure["end"]] == figure["text"]
        rows = {"revenue": [3], "prior_revenue": [4], "change": [3, 4]}[figure["fact"]]
        in_the_file = {"file": "facts.txt", "sheet": None, "column": None}
        assert figure["cells"] == [{**in_the_file, "place": f"line {row}", "row": row} for row in rows]
    assert text != free["choices"][0]["message"]["content"] and "audits" in free["lowrank"]
    last = events(served.chat(**MEMO, stream=True).text)[-1]
    assert last["choices"][0]["finish_reason"] == "length" and last["lowrank"]["audits"] == [audit]


def test_facts_are_a_text_or_an_object_whose_numbers_stay_as_they_are_written(served: Served) -> None:
    body = json.dumps({"model": "red", "messages": [{"role": "user", "content": "Write."}], "max_tokens": 1})
    as_written = body[:-1] + ', "facts": {"revenue (EUR million)": 412.50, "headcount": 1204}}'
    headers = {"content-type": "application/json"}
    answer = served.client.post("/v1/chat/completions", content=as_written, headers=headers).json()
    facts = {fact["label"]: fact["print"] for fact in answer["lowrank"]["audits"][0]["facts"]}
    assert facts == {"revenue": "EUR 412.50 million", "headcount": "1204"}
    of_many = "company,revenue,debt\nA Ltd,$1.5 million,$2 million\nB Ltd,$2.5 million,$3 million\n"
    chosen = served.chat(facts=of_many, record="B Ltd", max_tokens=1)
    assert chosen.status_code == 400  # a text is read as lines, not as a table without its name
    table = "| company | revenue | debt |\n|---|---|---|\n| A Ltd | $1.5 million | $2 million |\n"
    chosen = served.chat(facts=table, max_tokens=1).json()
    assert chosen["lowrank"]["audits"][0]["record"]["name"] == "A Ltd"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"model": "green"}, "model", "model must be one of embedded, red, blue, got 'green'"),
        ({"model": "../../etc/passwd"}, "model", "model must be one of embedded, red, blue, got '../../etc/passwd'"),
        ({"model": "/srv/hat"}, "model", "got '/srv/hat'"),
        ({"model": "left out"}, "model", "got None"),
        ({"model": ["red"]}, "model", "got ['red']"),
        ({"temperature": 3}, "temperature", "temperature must be a number of 0 to 2, got 3"),
        ({"temperature": True}, "temperature", "got True"),
        ({"top_p": 0}, "top_p", "top_p must be"),
        ({"max_tokens": 0}, "max_tokens", "a whole number of 1 to 200, got 0"),
        ({"max_tokens": 201}, "max_tokens", "a whole number of 1 to 200, got 201"),
        ({"max_tokens": 1.5}, "max_tokens", "got 1.5"),
        ({"max_completion_tokens": 5}, "max_tokens", "are one thing: leave one out"),
        ({"n": 9}, "n", "a whole number of 1 to 8, got 9"),
        ({"stop": [""]}, "stop", "stop must be texts of 1 to 200 characters, got ''"),
        ({"stop": list("abcde")}, "stop", "at most 4 of them"),
        ({"seed": 10**30}, "seed", "seed must be a whole number"),
        ({"stream": "yes"}, "stream", "stream must be true or false, got 'yes'"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "and of `stream`"),
        ({"messages": "left out"}, "messages", "messages must be a list"),
        ({"messages": []}, "messages", "must not be empty, but with `facts` and `kind`"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "messages[0].content must be a text, got None"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "messages[0].role must be one of"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages[0]", "must take turns"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]},
            "messages",
            "the last of the messages must be the user's",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content",
            "a part must be of type text",
        ),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name", "unsupported parameter"),
        ({"kind": "credit_memo"}, "kind", "kind is of `facts`"),
        ({"top_logprobs": 2}, "top_logprobs", "top_logprobs is of `logprobs`: it must be true beside it"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "a whole number of 0 to 20, got 21"),
        ({"logprobs": 2}, "logprobs", "logprobs must be true or false, got 2"),
        ({"grounded": True}, "grounded", "grounded is of `facts`"),
        ({"facts": FACTS, "kind": "../kind.toml"}, "kind", "kind must be one of"),
        ({"facts": 7}, "facts", "facts must be a text or an object of labels with values, got 7"),
        ({"facts": "nothing of use"}, "facts", "facts.txt: must hold facts such as"),
        ({"facts": ""}, "facts", "facts.txt: is empty"),
        ({"facts": FACTS, "record": "B Ltd"}, "record", "facts.txt: must hold one record 'B Ltd', has 0"),
        ({"frobnicate": 1}, "frobnicate", "unsupported parameter 'frobnicate'"),
    ],
    ids=str,
)
def test_a_mistake_is_told_in_one_line_with_its_parameter(
    served: Served, changes: dict[str, Any], param: str, words: str
) -> None:
    answer = served.chat(**changes)
    error = answer.json()["error"]
    assert answer.status_code == (404 if param == "model" else 400)
    assert words in error["message"] and "\n" not in error["message"] and error["param"] == param
    assert error.keys() == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(INERT))
def test_a_parameter_that_is_not_supported_is_refused_by_name_and_passes_where_it_does_nothing(
    served: Served, name: str
) -> None:
    answer = served.chat(**{name: "something"})
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == name and error["code"] == "unsupported_parameter"
    for harmless in (None, *INERT[name]):
        assert served.chat(**{name: harmless}, max_tokens=1).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"model": NaN}', 400),
        (b'{"model": "\xff"}', 400),
        (b'{"model": "\\ud800"}', 400),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", 400),
        (b'{"seed": ' + b"9" * 5000 + b"}", 400),
        (b'{"temperature": 1e999, "model": "red", "messages": []}', 400),
    ],
    ids=range(10),
)
def test_what_is_no_json_of_ours_is_refused(served: Served, body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    assert served.client.post("/v1/chat/completions", content=body, headers=headers).status_code == status
    plain = served.client.post("/v1/chat/completions", content=body, headers={"content-type": "text/plain"})
    assert plain.status_code == 415


def test_a_prompt_that_is_too_long_is_refused_before_it_waits(served: Served) -> None:
    answer = served.chat(messages=[{"role": "user", "content": "word " * 5000}])
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"
    foreign = {"model": "red", "prompt": [1, 10**6]}
    assert "a token must be in 0 to" in served.client.post("/v1/completions", json=foreign).json()["error"]["message"]


def test_a_text_that_no_memory_is_left_for_is_the_clients_mistake(served: Served) -> None:
    served.engine.cache_bytes = 1
    answer = served.chat()
    assert answer.status_code == 400 and "of keys and values" in answer.json()["error"]["message"]


def test_other_methods_and_paths_are_refused_in_the_same_shape(served: Served) -> None:
    for method, path, status in (
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/app.js/", 404),
    ):
        answer = served.client.request(method, path)
        assert answer.status_code == status and answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_an_error_of_ours_is_told_without_what_was_asked(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise LookupError("a secret of the prompt")

    monkeypatch.setattr("lowrank.serve.openai_api.conversation_prompt", broken)
    with pytest.raises(LookupError):  # as uvicorn gets it, which tells its place alone (`private_log`)
        served.chat()
    served.client = type(served.client)(
        served.app,
        base_url=served.client.base_url,
        headers={"authorization": f"Bearer {TOKEN}"},
        raise_server_exceptions=False,
    )
    answer = served.chat()
    assert answer.status_code == 500 and answer.json()["error"]["message"] == "the request could not be answered"


def test_a_line_an_answer_tells_tokens_and_nothing_of_the_text(served: Served) -> None:
    served.chat(**MEMO)
    assert len(served.told) == 1
    assert served.told[0].startswith("chat red: ") and "tokens" in served.told[0] and "Aldane" not in served.told[0]
