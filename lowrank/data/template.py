"""How an instruction and its input are put before a model. A hat is used with the template it was trained with."""

from collections.abc import Mapping
from types import MappingProxyType

# Name -> text before the completion. The name is stored in a hat, so a text never changes under its name.
TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "alpaca": "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
        "fingpt": "Instruction: {instruction}\nInput: {input}\nAnswer: ",
    }
)


def render(template: str, instruction: str, input: str) -> str:
    """The prompt: everything up to where the completion begins.

    Raises ValueError for a template that is not in TEMPLATES.
    """
    if template not in TEMPLATES:
        raise ValueError(f"template must be one of {', '.join(TEMPLATES)}, got {template!r}")
    return TEMPLATES[template].format(instruction=instruction, input=input)
