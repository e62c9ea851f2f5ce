"""Files of examples as people have them, and the words by which each is refused, "" if it is not.

Made after shared cases B-* of public reports; each has some good rows and one thing that is odd.
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """A file, the words of its refusal, and the template that it is learned in."""

    name: str
    data: bytes
    refusal: str = ""
    template: str = "alpaca"
    is_preference: bool = False


GOOD = [
    {
        "instruction": f"Give the gross margin of company {n}.",
        "input": f"revenue: ${100 + n}.0 million\ngross margin: {20 + n}.5%",
        "output": f"The gross margin of company {n} was {20 + n}.5%.",
    }
    for n in range(4)
]
CHAT = [
    {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
    for n in range(3)
]
SHAREGPT = [
    {"conversations": [{"from": "human", "value": f"What is {n}?"}, {"from": "gpt", "value": f"It is {n}."}]}
    for n in range(3)
]


def lines(*rows: Any) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "surrogatepass")


def chat(*messages: dict[str, Any], **keys: Any) -> bytes:
    """Good conversations, and one of these messages."""
    return lines(*CHAT, {"messages": list(messages), **keys})


def says(role: str, content: Any, **keys: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **keys}


def odd(**keys: Any) -> bytes:
    """Good rows, and one that has these keys besides or instead."""
    return lines(*GOOD, {**GOOD[0], **keys})


LONG = "The margin was 25.5%. " * 300
PREFERRED = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}


def preferences(*rows: Any, refusal: str = "") -> Case:
    """Good preferences, and these rows behind them."""
    text = f"a.jsonl:{refusal}" if refusal else ""
    return Case("a.jsonl", lines(PREFERRED, {**PREFERRED, "prompt": "When?"}, *rows), text, is_preference=True)


LATIN = lines(*GOOD) + '{"instruction": "a", "output": "Société"}\n'.encode("latin-1")
ANSWERED = says("assistant", "Hello")
CALLED = says("assistant", None, tool_calls=[{"type": "function", "function": {"name": "f", "arguments": "{}"}}])

CASES: Mapping[str, Case] = {
    # Containers
    "good": Case("a.jsonl", lines(*GOOD)),
    "one row": Case("a.jsonl", lines(GOOD[0])),
    "array": Case("a.json", json.dumps(GOOD, indent=2).encode()),
    "object with a list": Case("a.json", json.dumps({"version": 1, "data": GOOD}, indent=2).encode()),
    "object with two lists": Case("a.json", json.dumps({"train": GOOD, "test": GOOD}).encode(), "'train', 'test'"),
    "concatenated": Case("a.jsonl", b"\n".join(json.dumps(row, indent=2).encode() for row in GOOD)),
    "concatenated and broken": Case("a.jsonl", b"{\n}\n{\n", "a.jsonl:4: must be JSON, got none"),
    "bom and crlf": Case("a.jsonl", b"\xef\xbb\xbf" + lines(*GOOD).replace(b"\n", b"\r\n")),
    "cr only": Case("a.jsonl", lines(*GOOD).replace(b"\n", b"\r")),
    "gzip": Case("a.jsonl.gz", gzip.compress(lines(*GOOD))),
    "no gzip": Case("a.jsonl.gz", lines(*GOOD), "a.jsonl.gz: must be whole gzip data"),
    "cut gzip": Case("a.jsonl.gz", gzip.compress(lines(*GOOD))[:-20], "a.jsonl.gz: must be whole gzip data"),
    "csv": Case("a.csv", b"instruction,input,output\nGive the margin,,The margin was 5%\n"),
    "csv of excel": Case("a.csv", '\ufeffinstruction;output\r\n"a;b";"c ""d""\r\ne"\r\n'.encode()),
    "tsv": Case("a.tsv", b"question\tanswer\nWhy?\tBecause, of course\n"),
    "csv of messages": Case(
        "a.csv", b'messages\n"' + json.dumps(CHAT[0]["messages"]).replace('"', '""').encode() + b'"'
    ),
    "csv with a short row": Case("a.csv", b"instruction,output\na,b\nc\n", "a.csv:3: must have a cell for each of 2"),
    "csv with a long row": Case("a.csv", b"instruction,output\na,b,c\n", "a.csv:2: must have a cell for each of 2"),
    "csv with a key twice": Case(
        "a.csv", b"instruction,output,output\na,b,c\n", "a.csv:1: each column must have a name"
    ),
    "csv without a header": Case("a.csv", b"Give it,So it is\nGive it,So it was\n", "told by its keys"),
    "csv with an open quote": Case("a.csv", b'instruction,output\na,"b\n', "a.csv:2: must be CSV"),
    "csv with an empty answer": Case("a.csv", b"instruction,output\na,\nb,c\n", "a.csv:2: output: must not be empty"),
    "csv of a header": Case("a.csv", b"instruction,output\n", "at least one entry"),
    "no parquet": Case("a.parquet", lines(*GOOD), "a.parquet: must be a Parquet file"),
    "no workbook": Case("a.xlsx", lines(*GOOD), "a.xlsx: must be an XLSX workbook"),
    "empty": Case("a.jsonl", b"", "a.jsonl: must hold at least one entry, got none"),
    "blank": Case("a.jsonl", b"\n \n", "a.jsonl: must hold at least one entry, got none"),
    "empty array": Case("a.json", b"[]", "a.json: must hold at least one entry, got none"),
    "array with a comma too many": Case(
        "a.json", b'[\n{"instruction": "a", "output": "b"},\n]', "a.json:3: must be JSON, got a"
    ),
    "array cut short": Case("a.json", json.dumps(GOOD, indent=2).encode()[:-9], "must be JSON, got none"),
    "comma in an object": Case(
        "a.jsonl", lines(*GOOD) + b'{"instruction": "a",}\n', "a.jsonl:5: must be JSON, got a comma"
    ),
    "commas behind lines": Case(
        "a.jsonl", lines(*GOOD).replace(b"}\n", b"},\n"), "a.jsonl:1: must be one JSON value, got a comma"
    ),
    "python": Case("a.jsonl", b"{'instruction': 'a', 'output': 'b'}\n", "a.jsonl:1: must be JSON, got none"),
    "prose": Case("a.txt", b"Dear investor,\nwe did well.\n", "a.txt:1: must be JSON, got none"),
    "numbers": Case("a.jsonl", b"1\n2\n", "told by its keys"),
    "latin-1": Case("a.jsonl", LATIN, "a.jsonl:5: must be UTF-8, byte 37 of the line, 0xe9, is not"),
    "utf-16": Case(
        "a.jsonl", lines(*GOOD).decode().encode("utf-16"), "a.jsonl: must be UTF-8, and begins as UTF-16 does"
    ),
    "utf-32": Case("a.csv", b"question,answer\na,b".decode().encode("utf-32"), "begins as UTF-32 does"),
    "nested deeply": Case(
        "a.jsonl",
        odd(extra=0).replace(b'"extra": 0', b'"extra": ' + b"[" * 9999 + b"]" * 9999),
        "a.jsonl:5: must be JSON, got values nested too deeply",
    ),
    "a number of 5000 digits": Case(
        "a.jsonl",
        odd(extra=0).replace(b'"extra": 0', b'"extra": ' + b"7" * 5000),
        "a.jsonl:5: must be JSON, got a number of too many digits",
    ),
    "a key twice": Case(
        "a.jsonl",
        lines(*GOOD) + b'{"instruction": "A", "output": "x", "output": "y"}\n',
        "a.jsonl:5: must be JSON with each key once, got 'output' twice",
    ),
    # Texts
    "line separator": Case("a.jsonl", odd(output="line one\u2028line two")),
    "nul": Case("a.jsonl", odd(output="Hello \x00 world")),
    "surrogate": Case(
        "a.jsonl",
        lines(*GOOD) + b'{"instruction": "a", "output": "\\ud83d"}\n',
        "a.jsonl:5: must be text that UTF-8 has, got the lone surrogate '\\ud83d'",
    ),
    "surrogate of an id": Case(
        "a.jsonl", lines(*GOOD) + b'{"id": "\\ud83d", "instruction": "a", "output": "b"}\n', "lone surrogate"
    ),
    "surrogate of a key": Case("a.jsonl", lines(*GOOD) + b'{"\\ud83d": 1, "instruction": "a", "output": "b"}\n'),
    "empty output": Case("a.jsonl", odd(output=""), "a.jsonl:5: output: must not be empty"),
    "blank output": Case("a.jsonl", odd(output=" \n"), "a.jsonl:5: output: must not be empty"),
    "no output": Case("a.jsonl", odd(output=None), "a.jsonl:5: output: must be a text, got nothing"),
    "number for an output": Case("a.jsonl", odd(output=5), "a.jsonl:5: output: must be a text, got 5"),
    "list for an output": Case("a.jsonl", odd(output=["a"]), "a.jsonl:5: output: must be a text, got a list of 1"),
    "nan": Case("a.jsonl", odd(instruction=float("nan")), "a.jsonl:5: instruction: must be a text, got nan"),
    "nan in another key": Case("a.jsonl", odd(score=float("nan"))),
    "no input": Case("a.jsonl", odd(input=None)),
    "empty prompt": Case("a.jsonl", odd(instruction="", input=""), "a.jsonl:5: instruction: must not be empty"),
    "input alone": Case("a.jsonl", odd(instruction="")),
    "no object": Case("a.jsonl", lines(*GOOD, 7), "a.jsonl:5: must be an object, got 7"),
    "mixed": Case("a.jsonl", lines(*GOOD, CHAT[0]), "a.jsonl:5: must be of the format alpaca, got chat"),
    "twice": Case("a.jsonl", lines(*GOOD, *GOOD)),
    "all too long": Case("a.jsonl", lines(*({**row, "output": LONG} for row in GOOD)), "none of 4 entries"),
    "one too long": Case("a.jsonl", odd(output=LONG)),
    "prompt too long": Case("a.jsonl", odd(input=LONG)),
    "200,000 letters": Case("a.jsonl", odd(input="a" * 200_000)),
    # Formats
    "prompt and completion": Case("a.jsonl", lines({"prompt": "Why?", "completion": " So."})),
    "prompt and completion of messages": Case(
        "a.jsonl", lines({"prompt": [says("user", "Why?")], "completion": [says("assistant", "So.")]})
    ),
    "question and answer": Case("a.jsonl", lines({"question": "Why?", "answer": "So."})),
    "dolly": Case("a.jsonl", lines({"instruction": "Why?", "context": "", "response": "So.", "category": "qa"})),
    "open orca": Case("a.jsonl", lines({"system_prompt": "Be brief.", "question": "Why?", "response": "So."})),
    "text": Case("a.jsonl", lines({"text": "All of it is learned."})),
    "blank text": Case(
        "a.jsonl", lines({"text": "All of it is learned."}, {"text": " "}), "a.jsonl:2: text: must not be empty"
    ),
    "preferences as answers": Case("a.jsonl", lines(PREFERRED), "a.jsonl: holds preferences, chosen and rejected"),
    "answers as preferences": Case(
        "a.jsonl", lines(*GOOD), "a.jsonl: must hold preferences, chosen and rejected", is_preference=True
    ),
    "preferences": preferences(),
    "preferences among answers": Case(
        "a.jsonl", lines(*GOOD, PREFERRED), "a.jsonl:5: must be of the format alpaca, got preference"
    ),
    "answers among preferences": preferences(GOOD[0], refusal="3: must be of the format preference, got alpaca"),
    "chosen alone": Case("a.jsonl", odd(chosen="So."), "a.jsonl:5: chosen: one answer without the other"),
    "preferences of messages": preferences(
        {"prompt": [says("user", "Why?")], "chosen": [says("assistant", "So.")], "rejected": [says("assistant", "No.")]}
    ),
    "preferences with the prompt inside": preferences(
        {key: [says("user", "Why?"), says("assistant", text)] for key, text in (("chosen", "So."), ("rejected", "No."))}
    ),
    "ultrafeedback": preferences(
        {
            "prompt": "Why?",
            "prompt_id": "7",
            **{key: [says("user", "Why?"), says("assistant", key)] for key in ("chosen", "rejected")},
            "messages": [says("user", "Why?"), says("assistant", "chosen")],
            "score_chosen": 8.0,
        }
    ),
    "preferences of llama factory": preferences(
        {
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "So."},
            "rejected": {"from": "gpt", "value": "No."},
        }
    ),
    "preferences with a system prompt": preferences({**PREFERRED, "system": "Be brief."}),
    "preferences of alpaca's keys": preferences(
        {"instruction": "Why?", "input": "This.", "chosen": "So.", "rejected": "No."}
    ),
    "preferences without a prompt": preferences(
        {"chosen": "So.", "rejected": "No."}, refusal="3: prompt: must be there"
    ),
    "the same answer twice": preferences({**PREFERRED, "rejected": "So."}, refusal="3: rejected: must differ from"),
    "an empty rejected answer": preferences({**PREFERRED, "rejected": " "}, refusal="3: rejected: must not be empty"),
    "no rejected answer": preferences({**PREFERRED, "rejected": None}, refusal="3: rejected: must be a text"),
    "two conversations": preferences(
        {
            "chosen": [says("user", "Why?"), says("assistant", "So.")],
            "rejected": [says("user", "When?"), says("assistant", "No.")],
        },
        refusal="3: rejected: must differ from chosen in its last answer alone",
    ),
    "another prompt inside": preferences(
        {"prompt": "When?", **{key: [says("user", "Why?"), says("assistant", key)] for key in ("chosen", "rejected")}},
        refusal="3: chosen: must begin with the text of prompt",
    ),
    "preferences of tools": preferences({**PREFERRED, "tools": [{"name": "f"}]}, refusal="3: tools: tools cannot"),
    "a rejected lone surrogate": Case(
        "a.jsonl",
        json.dumps({**PREFERRED, "rejected": "\ud800"}).encode(),
        "a.jsonl:1: must be text",
        is_preference=True,
    ),
    "a tag in a rejected answer": Case(
        "a.jsonl",
        lines({**PREFERRED, "rejected": "[INST]"}),
        "special tags are not allowed",
        "llama2-chat",
        is_preference=True,
    ),
    "a rejected answer too long": Case(
        "a.jsonl", lines({**PREFERRED, "rejected": LONG}), "none of 1 entries", is_preference=True
    ),
    "unknown keys": Case("a.jsonl", lines({"head": "a", "tail": "b"}), "a.jsonl: the format must be told by its keys"),
    "a misspelt key": Case(
        "a.jsonl", lines(*GOOD, {"instruction": "a", "ouput": "b"}), "a.jsonl:5: output: must be a text, got nothing"
    ),
    "a record and its letter": Case(
        "a.jsonl", lines({"facts": {"a": "1"}, "letter": "It was 1."}), "a.jsonl:1: facts: must be imported first"
    ),
    "alpaca with system and history": Case(
        "a.jsonl", odd(system="Answer in French.", history=[["Earlier?", "Earlier."]])
    ),
    "history that is none": Case("a.jsonl", odd(history="earlier"), "a.jsonl:5: history: must be a list of messages"),
    "system that has no place": Case(
        "a.jsonl", odd(system="Be brief."), "template fingpt has no place for a system", "fingpt"
    ),
    "chat": Case("a.jsonl", lines(*CHAT)),
    "chat with a system turn": Case("a.jsonl", chat(says("system", "Be terse."), says("user", "Hi"), ANSWERED)),
    "the same for llama 2": Case(
        "a.jsonl", chat(says("system", "Be terse."), says("user", "Hi"), ANSWERED), "", "llama2-chat"
    ),
    "chat with an empty system turn": Case(
        "a.jsonl", chat(says("system", ""), says("user", "Hi"), ANSWERED), "", "llama2-chat"
    ),
    "chat with a late system turn": Case(
        "a.jsonl",
        chat(says("user", "Hi"), ANSWERED, says("system", "Be terse.")),
        "a.jsonl:4: messages[3]: a system prompt must be the first",
    ),
    "chat with a system beside it": Case("a.jsonl", chat(says("user", "Hi"), ANSWERED, system="Be terse.")),
    "chat with two systems": Case(
        "a.jsonl",
        chat(says("system", "Be terse."), says("user", "Hi"), ANSWERED, system="Be long."),
        "a.jsonl:4: system: must be one system prompt",
    ),
    "chat in parts": Case("a.jsonl", chat(says("user", [{"type": "text", "text": "Hi"}]), ANSWERED)),
    "chat with a picture": Case(
        "a.jsonl",
        chat(says("user", [{"type": "image_url", "image_url": {"url": "x"}}]), ANSWERED),
        "a.jsonl:4: messages[1].content[1].type: must be 'text', got 'image_url'",
    ),
    "chat with the assistant first": Case(
        "a.jsonl",
        chat(says("assistant", "Hi"), says("user", "Hi"), ANSWERED),
        "a.jsonl:4: messages: must be prompts, each with its answer",
    ),
    "chat with two users": Case(
        "a.jsonl", chat(says("user", "Hi"), says("user", "Hello?"), ANSWERED), "got user user assistant"
    ),
    "chat without the last answer": Case(
        "a.jsonl", chat(says("user", "Hi"), ANSWERED, says("user", "So?")), "got user assistant user"
    ),
    "chat with a blank answer": Case(
        "a.jsonl",
        chat(says("user", "Hi"), says("assistant", " ")),
        "a.jsonl:4: messages: each prompt and each answer must have",
    ),
    "chat of nothing": Case(
        "a.jsonl", chat(), "a.jsonl:4: messages: must be prompts, each with its answer behind it, got nothing"
    ),
    "chat with a tool": Case(
        "a.jsonl",
        chat(says("user", "Hi"), CALLED, says("tool", "42"), ANSWERED),
        "a.jsonl:4: messages[2].tool_calls: a call of a tool cannot be learned",
    ),
    "chat with a tool's answer": Case(
        "a.jsonl", chat(says("user", "Hi"), says("tool", "42"), ANSWERED), "a.jsonl:4: messages[2].role: a tool's turn"
    ),
    "chat with tools beside it": Case(
        "a.jsonl",
        chat(says("user", "Hi"), ANSWERED, tools=[{"type": "function"}]),
        "a.jsonl:4: tools: tools cannot be learned",
    ),
    "chat with no tools beside it": Case("a.jsonl", chat(says("user", "Hi"), ANSWERED, tools=[])),
    "chat with a role that is none": Case(
        "a.jsonl", chat(says("narrator", "Hi"), ANSWERED), "a.jsonl:4: messages[1].role: must be one of"
    ),
    "chat with weight 0": Case(
        "a.jsonl", chat(says("user", "1"), says("assistant", "BAD", weight=0), says("user", "2"), ANSWERED)
    ),
    "chat with nothing but weight 0": Case(
        "a.jsonl",
        chat(says("user", "1"), says("assistant", "BAD", weight=0)),
        "a.jsonl:4: weight must be 1 for at least one answer",
    ),
    "chat with half a weight": Case(
        "a.jsonl",
        chat(says("user", "1"), says("assistant", "a", weight=0.5)),
        "a.jsonl:4: messages[2].weight: must be 0 or 1, got 0.5",
    ),
    "chat with a prompt to learn": Case(
        "a.jsonl",
        chat(says("user", "1", weight=1), ANSWERED),
        "a.jsonl:4: messages[1].weight: must be 0 but for an answer",
    ),
    "chat with tags": Case(
        "a.jsonl",
        chat(says("user", "What does [INST] mean?"), ANSWERED),
        "special tags are not allowed in a text, got '[INST]'",
        "llama2-chat",
    ),
    "the same tags elsewhere": Case("a.jsonl", chat(says("user", "What does [INST] mean?"), ANSWERED)),
    "sharegpt": Case("a.jsonl", lines(*SHAREGPT)),
    "sharegpt with roles of chat": Case("a.jsonl", lines(*SHAREGPT, {"conversations": CHAT[0]["messages"]})),
    "sharegpt with a system beside it": Case(
        "a.jsonl", lines(*({**row, "system": "Answer in French."} for row in SHAREGPT))
    ),
    "sharegpt with an empty system": Case(
        "a.jsonl",
        lines({"conversations": [{"from": "system", "value": ""}, *SHAREGPT[0]["conversations"]]}),
        "",
        "llama2-chat",
    ),
}
