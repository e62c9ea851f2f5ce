"""Our templates in jinja2, for programs that read chat templates: a chat comes out as `Template.parts` writes it."""

import json

from .template import ANSWER, INSTRUCTION, SYSTEM, SYSTEM_END, Llama2Chat, Template


def jinja_form(template: Template, *, begins: bool = True) -> str:
    """The chat template of a template: messages of system, user and assistant; an end token behind each answer

    begins  a begin token stands before what is asked, as where the tokenizer has one
    What a user writes is the instruction: a chat has no place for an input of its own. A system prompt that the
    template has no place for raises there as it does here.
    """
    begin = "{{ bos_token }}" if begins else ""
    first = "{% if loop.first or messages[loop.index0 - 1]['role'] != 'system' %}"
    if isinstance(template, Llama2Chat):
        over, under = _text(f"{SYSTEM}\n"), _text(f"\n{SYSTEM_END}\n\n")
        folded = f"{over}{{{{ messages[0]['content'] }}}}{under}{{{{ message['content'] }}}}"
        user = (
            f"{begin}{_text(f'{INSTRUCTION} ')}{{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}}{folded}"
            f"{{% else %}}{{{{ message['content'] | trim }}}}{{% endif %}}{_text(f' {ANSWER}')}"
        )
        system, answer = "", f"{{{{ message['content'] | trim }}}}{_text(' ')}"
    else:
        before, _, after = template.without_input.partition("{instruction}")
        user = f"{first}{begin}{{% endif %}}{_text(before)}{{{{ message['content'] }}}}{_text(after)}"
        system = f"{{{{ raise_exception('template {template.name} has no place for a system prompt') }}}}"
        if template.with_system:
            over, _, under = template.with_system.partition("{system}")
            system = f"{begin}{_text(over)}{{{{ message['content'] }}}}{_text(under)}"
        answer = "{{ message['content'] }}"
    return (
        "{% for message in messages %}"
        f"{{% if message['role'] == 'system' %}}{system}"
        f"{{% elif message['role'] == 'user' %}}{user}"
        f"{{% elif message['role'] == 'assistant' %}}{answer}{{{{ eos_token }}}}"
        "{% else %}{{ raise_exception('roles are system, user and assistant') }}{% endif %}"
        "{% endfor %}"
    )


def _text(text: str) -> str:
    """A text as an expression: as it is, jinja2 would take a line's end away behind a block."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
