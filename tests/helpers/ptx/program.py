"""A kernel's PTX as a list of instructions: guards, opcodes and operands taken apart, labels resolved.

Registers are numbered; each has the width in bits of its declaration, a predicate 1.
"""

import re
from dataclasses import dataclass, field
from typing import Any

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_LINE_DIRECTIVE = re.compile(r"^\s*\.(loc|file)\b[^\n]*$", re.MULTILINE)
_LABEL = re.compile(r"\s*(\$[\w$]+|[A-Za-z_][\w$]*):")
_GUARD = re.compile(r"@(!?)(%?\w+)\s+")
_SHARED = re.compile(r"\.extern\s+\.shared\s+\.align\s+\d+\s+\.b8\s+(\w+)\[")
_WIDTH = re.compile(r"[a-z]+(\d+)")


@dataclass(frozen=True)
class Instruction:
    """`@!guard opcode operands`, with the opcode's parts and the text for messages."""

    parts: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str = ""
    is_negated: bool = False
    text: str = ""


@dataclass
class Program:
    """name, parameters (bits of each), threads of a block, instructions; labels: where each leads."""

    ptx: str
    name: str = field(init=False)
    parameters: list[int] = field(init=False)
    threads: int = field(init=False)
    instructions: list[Instruction] = field(init=False, default_factory=list)
    labels: dict[str, int] = field(init=False, default_factory=dict)
    steps: list[Any] = field(init=False, default_factory=list)  # functions of the instructions, once a block has run
    dynamic_shared: str = field(init=False)  # the name of the shared memory whose size a launch gives, "" without
    _families: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        text = _LINE_DIRECTIVE.sub("", _COMMENT.sub("", self.ptx))
        entry = re.search(r"\.entry\s+(\w+)\s*\(([^)]*)\)([^{]*)\{", text)
        assert entry, "the PTX has no kernel"
        self.name = entry[1]
        self.parameters = [int(bits) for bits in re.findall(r"\.param\s+\.[a-z](\d+)", entry[2])]
        shape = re.search(r"\.(?:req|max)ntid\s+(\d+)((?:\s*,\s*\d+)*)", entry[3])
        assert shape and set(re.findall(r"\d+", shape[2])) <= {"1"}, (
            f"{self.name}: blocks of one dimension are expected"
        )
        self.threads = int(shape[1])
        shared = _SHARED.findall(text[: entry.start()])
        assert len(shared) < 2, f"{self.name}: several arrays of shared memory"
        self.dynamic_shared = shared[0] if shared else ""
        self._read(text, entry.end())

    def _read(self, text: str, at: int) -> None:
        """Statements up to the brace that closes the kernel. No statement begins with a brace, so one opens a scope."""
        depth = 1
        while depth:
            while text[at].isspace():
                at += 1
            if text[at] in "{}":
                depth += 1 if text[at] == "{" else -1
                at += 1
            elif label := _LABEL.match(text, at):
                self.labels[label[1]] = len(self.instructions)
                at = label.end()
            else:
                end = text.index(";", at)
                self._statement(" ".join(text[at:end].split()))
                at = end + 1

    def _statement(self, text: str) -> None:
        if not text or text.startswith(".pragma"):
            return
        if text.startswith(".reg"):
            _, kind, names = text.split(maxsplit=2)
            width = 1 if kind == ".pred" else int(_WIDTH.fullmatch(kind[1:])[1])  # type: ignore[index]
            for name in names.split(","):
                self._families[name.strip().partition("<")[0]] = width
            return
        assert not text.startswith("."), f"{self.name}: directive {text!r}"
        guard = _GUARD.match(text)
        rest = text[guard.end() :] if guard else text
        opcode, _, operands = rest.partition(" ")
        self.instructions.append(
            Instruction(
                tuple(opcode.split(".")),
                tuple(_split(operands)),
                guard[2] if guard else "",
                bool(guard and guard[1]),
                text,
            )
        )

    def width(self, register: str) -> int:
        """Bits of a register, by its own declaration or that of its family: %r7 is one of %r<14>."""
        width = self._families.get(register) or self._families.get(register.rstrip("0123456789"))
        assert width, f"{self.name}: register {register} is not declared"
        return width


def registers(operand: str) -> list[str]:
    """The registers of an operand: "{ %r1, %r2 }" has two, "%r1" is one."""
    return [part.strip() for part in operand.strip("{} ").split(",")]


def _split(text: str) -> list[str]:
    """At commas that no bracket encloses: "{ %r1, %r2 }, [ %rd1 + 4 ]" has two operands."""
    found, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        if letter in "{[(":
            depth += 1
        elif letter in "}])":
            depth -= 1
        elif letter == "," and not depth:
            found.append(text[start:place].strip())
            start = place + 1
    last = text[start:].strip()
    return [*found, last] if last else found
