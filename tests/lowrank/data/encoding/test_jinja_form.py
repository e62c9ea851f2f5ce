"""Our templates as chat templates: rendered by jinja2 they are the parts that training reads, to the letter."""

import pytest
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lowrank.data.encoding.jinja_form import jinja_form
from lowrank.data.encoding.template import TEMPLATES, Conversation, Turn

ASKED = ("Write a memo.", "One.\n\n### Input:\nEBITDA: $184.3 million", "a {brace} % {{ x }} 'quoted' \"\\n", "é中")


def render(form: str, messages: list[dict[str, str]]) -> str:
    """As transformers does, and llama.cpp after it."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(text: str) -> None:
        raise TemplateError(text)

    environment.globals["raise_exception"] = refuse
    return environment.from_string(form).render(messages=messages, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("begins", [True, False], ids=["begin", "no-begin"])
@pytest.mark.parametrize("system", ["", "You are terse."], ids=["plain", "system"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_is_written_as_the_parts_of_a_conversation(name: str, system: str, begins: bool) -> None:
    template = TEMPLATES[name]
    messages = [{"role": "system", "content": system}] if system else []
    turns = []
    for number, asked in enumerate(ASKED):
        answer = f"Answer {number}." if number < len(ASKED) - 1 else None
        turns.append(Turn(asked, output=answer))
        messages.append({"role": "user", "content": asked})
        messages += [{"role": "assistant", "content": answer}] if answer else []
    form = jinja_form(template, begins=begins)
    try:
        parts = template.parts(Conversation("x", tuple(turns), system))
    except ValueError:
        with pytest.raises(TemplateError, match="has no place for a system prompt"):
            render(form, messages)
        return
    begin = "<s>" if begins else ""
    expected = "".join(part.text + "</s>" if part.answered else begin + part.text for part in parts)
    assert render(form, messages) == expected


def test_another_role_is_refused() -> None:
    with pytest.raises(TemplateError, match="roles are system, user and assistant"):
        render(jinja_form(TEMPLATES["alpaca"]), [{"role": "tool", "content": "x"}])
