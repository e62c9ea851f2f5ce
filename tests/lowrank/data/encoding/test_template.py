"""Templates: their texts never change, Meta's chat ids are Meta's, and a hat meets no other template than its own."""

from dataclasses import replace
from pathlib import Path

import pytest

from lowrank.data.encoding.batching import encode
from lowrank.data.encoding.template import DEFAULT, TEMPLATES, Conversation, Turn, find, recorded, template_for
from lowrank.model.loss import IGNORED
from lowrank.model.tokenizer import Tokenizer

ASKED, GIVEN, ANSWER = "Name {it}.", "debt: $4.2 million\nfee: 0.5%", " The debt.\n"

# (name, version) -> the prompt with an input, the prompt without one, what is learned. New text, new version.
TEXTS = {
    ("alpaca", 1): (
        "### Instruction:\nName {it}.\n\n### Input:\ndebt: $4.2 million\nfee: 0.5%\n\n### Response:\n",
        "### Instruction:\nName {it}.\n\n### Response:\n",
        " The debt.\n",
    ),
    ("fingpt", 1): (
        "Instruction: Name {it}.\nInput: debt: $4.2 million\nfee: 0.5%\nAnswer: ",
        "Instruction: Name {it}.\nInput: \nAnswer: ",
        " The debt.\n",
    ),
    ("llama2-chat", 1): (
        "[INST] Name {it}.\n\ndebt: $4.2 million\nfee: 0.5% [/INST]",
        "[INST] Name {it}. [/INST]",
        "The debt. ",
    ),
    ("plain", 1): (
        "Name {it}.\n\ndebt: $4.2 million\nfee: 0.5%\n\n",
        "Name {it}.\n\n",
        " The debt.\n",
    ),
}


def test_every_template_is_pinned_with_its_version() -> None:
    assert {(template.name, template.version) for template in TEMPLATES.values()} == TEXTS.keys()
    assert all(name == template.name for name, template in TEMPLATES.items())
    assert DEFAULT in TEMPLATES


@pytest.mark.parametrize(("name", "version"), TEXTS, ids=str)
def test_the_text_of_a_name_and_version_never_changes(name, version) -> None:
    template = TEMPLATES[name]
    texts = (template.render(ASKED, GIVEN), template.render(ASKED, ""), template.completion(ANSWER))
    assert texts == TEXTS[name, version]


def test_a_template_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        find("alpaca").with_input = "{instruction}"
    with pytest.raises(TypeError):
        TEMPLATES["alpaca"] = find("plain")


def test_a_system_prompt_stands_before_the_prompt_or_is_refused_by_name() -> None:
    prompt = find("alpaca").render(ASKED, GIVEN)
    assert find("alpaca").render(ASKED, GIVEN, "Be brief.") == f"Be brief.\n\n{prompt}"
    assert find("plain").render(ASKED, "", "Use {braces}.") == "Use {braces}.\n\nName {it}.\n\n"
    with pytest.raises(ValueError, match=r"^template fingpt has no place for a system prompt, got 'Be brief\.'$"):
        find("fingpt").render(ASKED, GIVEN, "Be brief.")


@pytest.mark.parametrize("template", ["alpaca", "llama2-chat"])
def test_an_answer_of_weight_0_has_its_ids_and_is_not_learned(template, tokenizer) -> None:
    turns = [Turn("First?", output="A bad answer."), Turn("Second?", output="A good answer.")]
    learned = encode(Conversation("a", tuple(turns)), tokenizer, template)
    half = encode(Conversation("a", (replace(turns[0], learned=False), turns[1])), tokenizer, template)
    assert half.tokens == learned.tokens
    second = encode(Conversation("a", (turns[1],)), tokenizer, template)
    assert half.labels == (*[IGNORED] * (len(half) - len(second)), *second.labels)


def test_answers_none_of_which_is_learned_teach_nothing(tokenizer) -> None:
    with pytest.raises(ValueError, match=r"^entry a: weight must be 1 for at least one answer: there is nothing to "):
        encode(Conversation("a", (Turn("Why?", output="So.", learned=False),)), tokenizer, "alpaca")


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_text_is_learned_whole_with_no_template_around_it(template, tokenizer) -> None:
    example = encode(Conversation("a", (Turn("", output=" The debt. [INST]\n"),), is_text=True), tokenizer, template)
    assert list(example.tokens) == tokenizer.encode(" The debt. [INST]\n", bos=True, eos=True)
    assert example.labels == (IGNORED, *example.tokens[1:])


# Meta's format, against llama/generation.py's own rule


def chat_ids(tokenizer, turns, system):
    """`chat_completion` of Meta's generation.py, written down from its formula: what each dialog is tokenized to."""
    contents = [[turn.instruction, turn.output] for turn in turns]
    if system:
        contents[0][0] = f"<<SYS>>\n{system}\n<</SYS>>\n\n{contents[0][0]}"
    ids = []
    for user, answer in contents:
        if answer is None:
            ids += tokenizer.encode(f"[INST] {user.strip()} [/INST]", bos=True, eos=False)
        else:
            ids += tokenizer.encode(f"[INST] {user.strip()} [/INST] {answer.strip()} ", bos=True, eos=True)
    return ids


ANSWERS = [
    "It was $812.4 million.",
    "# Covenant Compliance Certificate\n\n- one\n- two\n",
    "  a lot of   spaces  ",
    "日本語 🏦 e\u0301",
    "]",
    "/INST] is written out",
    "\u00a0behind a space that does not break",
    "\u200bbehind no space",
    "12",
    "</s>",
    "<s>It ends here.</s>",
    "[",
    "INST]",
    "<",
    "▁",
    "\0",
    "\x07\x1b[0m",
    "\ufeffmark",
    "\U0010ffff",
    "👩\u200d👩\u200d👧",
    "\r\n\t- one\r\n",
    "\x85\u3000wide",
]


@pytest.mark.slow
@pytest.mark.parametrize("system", ["", "Answer in one sentence."], ids=["no-system", "system"])
@pytest.mark.parametrize("answer", ANSWERS, ids=ascii)
def test_the_ids_of_a_finished_turn_are_metas(answer, system, llama2_tokenizer: Path) -> None:
    tokenizer, turns = Tokenizer(llama2_tokenizer), [Turn(" What was the debt? ", output=answer)]
    assert list(encode(Conversation("a", tuple(turns), system), tokenizer, "llama2-chat").tokens) == chat_ids(
        tokenizer, turns, system
    )


@pytest.mark.slow
@pytest.mark.parametrize("system", ["", " be brief ", "</s>", "日本語 🏦"], ids=ascii)
@pytest.mark.parametrize("user", [answer for answer in ANSWERS if answer != "12"], ids=ascii)
def test_the_ids_of_a_question_are_metas(user, system, llama2_tokenizer: Path) -> None:
    tokenizer, turns = Tokenizer(llama2_tokenizer), [Turn(f"  {user}\n", output="Yes."), Turn(user)]
    tokens = list(encode(Conversation("a", tuple(turns), system), tokenizer, "llama2-chat").tokens)
    assert tokens == chat_ids(tokenizer, turns, system)
    assert (tokens.count(tokenizer.bos_id), tokens.count(tokenizer.eos_id)) == (2, 1)


def test_no_piece_of_llama_2_crosses_from_a_word_into_a_space(llama2_tokenizer: Path) -> None:
    """Why the answer may be tokenized apart."""
    tokenizer = Tokenizer(llama2_tokenizer)
    assert not [piece for piece in map(tokenizer.piece, range(32_000)) if "▁" in piece.lstrip("▁")]


def test_each_turn_begins_and_ends_a_text_of_its_own_and_the_last_is_left_open(llama2_tokenizer: Path) -> None:
    tokenizer = Tokenizer(llama2_tokenizer)
    turns = [Turn("What was the debt?", output="$4.2 million."), Turn("And the fee?", output="0.5%"), Turn("Why?")]
    example = encode(Conversation("a", tuple(turns), "Be brief."), tokenizer, "llama2-chat")
    assert list(example.tokens) == chat_ids(tokenizer, turns, "Be brief.")
    assert (example.tokens.count(tokenizer.bos_id), example.tokens.count(tokenizer.eos_id)) == (3, 2)
    learned = [label for label in example.labels if label != IGNORED]
    answers = ["$4.2 million. ", "0.5% "]
    assert learned == [id for answer in answers for id in tokenizer.encode(answer, bos=False, eos=True)]


def test_the_ids_of_a_short_dialog_by_hand(llama2_tokenizer: Path) -> None:
    example = encode(Conversation("a", (Turn("Hello", output="Hi"),)), Tokenizer(llama2_tokenizer), "llama2-chat")
    # <s> _[ INST ] _Hello _[ / INST ] _Hi _ </s>
    assert example.tokens == (1, 518, 25580, 29962, 15043, 518, 29914, 25580, 29962, 6324, 29871, 2)
    assert example.labels == (*[IGNORED] * 9, 6324, 29871, 2)


@pytest.mark.parametrize("tag", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"])
@pytest.mark.parametrize("place", ["instruction", "input", "output", "system"])
def test_a_special_tag_in_a_text_is_refused_with_its_entry(tag, place, tokenizer) -> None:
    texts = {"instruction": "a", "input": "b", "output": "c", "system": "d"} | {place: f"it says {tag} here"}
    system = texts.pop("system")
    with pytest.raises(ValueError) as caught:
        encode(Conversation("e-7", (Turn(**texts),), system), tokenizer, "llama2-chat")
    assert str(caught.value) == f"entry e-7: template llama2-chat: special tags are not allowed in a text, got {tag!r}"


# Which template a hat is used with


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_hat_records_is_found_again(name) -> None:
    assert recorded({"template": TEMPLATES[name].to_json()}, "hat") is TEMPLATES[name]
    assert recorded({"template": name}, "hat") is TEMPLATES[name]
    assert recorded({}, "hat") is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "alpaca", "version": 2}, "hat: trained with version 2 of the template 'alpaca', this is version 1"),
        ({"name": "chatml", "version": 1}, "hat: trained with the template 'chatml', known are alpaca, fingpt, "),
        ({"name": "alpaca"}, "hat: template: must be a name, or a name and a version, got {'name': 'alpaca'}"),
        (["alpaca"], "hat: template: must be a name, or a name and a version, got ['alpaca']"),
    ],
    ids=["version", "name", "no-version", "list"],
)
def test_a_template_that_is_not_here_is_told(entry, message) -> None:
    with pytest.raises(ValueError) as caught:
        recorded({"template": entry}, "hat")
    assert str(caught.value).startswith(message)


HATS = {"a": {"template": {"name": "fingpt", "version": 1}}, "b": {}, "c": {"template": "alpaca"}}


@pytest.mark.parametrize(
    ("hats", "asked", "chosen"),
    [
        ("", None, "alpaca"),
        ("", "plain", "plain"),
        ("a", None, "fingpt"),
        ("ab", "fingpt", "fingpt"),
        ("b", "plain", "plain"),
    ],
    ids=["nothing", "asked", "recorded", "both", "not-recorded"],
)
def test_hats_are_used_with_their_own_template(hats, asked, chosen, tokenizer) -> None:
    assert template_for({name: HATS[name] for name in hats}, asked, tokenizer=tokenizer) == chosen


@pytest.mark.parametrize(
    ("hats", "asked", "message"),
    [
        ("ba", "alpaca", "a: trained with the template 'fingpt', asked for 'alpaca'"),
        ("abc", None, "c: trained with the template 'alpaca', a with 'fingpt'"),
        ("b", "chatml", "template must be one of alpaca, fingpt, llama2-chat, plain, chat, got 'chatml'"),
    ],
    ids=["asked", "hats", "unknown"],
)
def test_another_template_is_refused_naming_both(hats, asked, message, tokenizer) -> None:
    with pytest.raises(ValueError) as caught:
        template_for({name: HATS[name] for name in hats}, asked, tokenizer=tokenizer)
    assert str(caught.value) == message
