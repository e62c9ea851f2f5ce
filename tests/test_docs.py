"""The pages: every command on them is run, or is on a list with the reason why not and is at least read by its parser.

What counts as a command is a line of a shell block (```sh), or of an indented block, that starts with one of COMMANDS.
The pages of RUN are run from top to bottom in an empty folder that holds the files which they show (```toml
title="run.toml"); what a page would do at length is made short by QUICK, and by nothing else.
"""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import lowrank
from lowrank.cli import build_parser, main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "bench" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FOLDERS = ("lowrank", "kernels", "model", "train", "eval", "bench")  # of the package
COMMANDS = ("lowrank", "make", "pip", "python", "torchrun", "hf")

RUN = ("docs/tutorial.md", "docs/evaluation.md", "docs/kernels-add.md")

# How a command of RUN begins -> what is put behind it to make it short.
QUICK = {
    "lowrank data documents": "--n 12",
    "lowrank train": "run.epochs=1",
    "lowrank eval": "--n 1",
    "lowrank generate": "--max-new-tokens 20",
    "lowrank merge": "--n 1",
}

# (what a command looks like, why it is not run). The first that fits counts; a command that fits none fails the test.
NOT_RUN = (
    (r"^lowrank quickstart", "run by tests/lowrank/workflows/test_quickstart.py"),
    (r"^lowrank reproduce embedded", "run by tests/lowrank/workflows/test_reproduce.py"),
    (r"^lowrank reproduce --lora", "run by tests/lowrank/workflows/test_lora.py"),
    (r"^lowrank data mixture( \S+)?$", "needs the network"),
    (r"^lowrank fetch", "needs the network"),
    (r"llama-2-7b", "needs Llama 2's weights"),
    (r"^make ", "is a target of the Makefile"),
    (r"^pip install", "changes the environment"),
    (r"--lm-eval", "needs the harness's own data sets; run on a local task by tests/lowrank/cli/test_eval.py"),
    (r"\b(BASE|OUT|HAT|FILE|DIR|KIND|REPO|RUN)\b|\[|\.\.\.", "is a form, with names to fill in"),
    (r"^lowrank bench kernels( --peers| --device|$)", "measures for a minute or more; run by tests/bench"),
    (r"^lowrank bench judge", "needs a kernel; run by tests/bench/judge/test_judge.py"),
    (r"letters", "run by tests/test_own_documents.py"),
    (r"^lowrank data (import|check)", "needs a file of the reader's own; run by tests/lowrank/cli/test_data.py"),
    (r"^lowrank data kind", "needs a reader's own documents; run by tests/lowrank/data/drafting/test_draft.py"),
    (r"^lowrank train right-figures", "needs a hat; run from one by tests/train/test_preference.py"),
    (r"^lowrank bench --predict", "run by tests/bench/static/test_predict.py"),
    (r"^lowrank inspect", "run by tests/lowrank/cli/test_inspect.py"),
    (r"--plan plan.json", "run by tests/eval/formats/test_page.py"),
    (r"^lowrank adapter|exact", "run by tests/lowrank/cli/test_adapter.py"),
    (r"^lowrank conformance", "run by tests/eval/conformance/test_page.py"),
    (r"^lowrank serve", "runs until it is interrupted; run by tests/lowrank/cli/test_serve.py"),
    (r"^torchrun.*generate", "run by tests/lowrank/cli/test_generate_out.py"),
    (r"^torchrun", "needs several GPUs; on the CPU by tests/train/parallel/test_torchrun.py"),
    (r"^python -m lowrank\.bench", "measures for a minute or more; run by tests/bench"),
    (r"^lowrank export OUT", "is a form, with names to fill in"),
)


@dataclass(frozen=True)
class Command:
    """A command where it stands."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"

    @property
    def reason(self) -> str | None:
        """Why it is not run, None if it is or should be."""
        return next((why for look, why in NOT_RUN if re.search(look, self.text)), None)

    @property
    def words(self) -> list[str]:
        """The command as a shell takes it; what a form has in brackets is left out."""
        return shlex.split(re.sub(r"\[[^]]*\]", "", self.text))


def commands(page: Path) -> list[Command]:
    """The commands of a page, in its order."""
    found, language = [], None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if fence := re.match(r"^```(\w*)", line):
            language = fence[1] if language is None else None
            continue
        indented = language is None and line.startswith("    ")
        if language == "sh" or indented:
            text = re.split(r"\s+#|\s{2,}", line.strip())[0]  # what follows is said of it
            if text.split(" ")[0] in COMMANDS:
                found.append(Command(str(page.relative_to(ROOT)), number, text))
            else:
                assert language != "sh" or not text, f"{page.name}:{number}: {text!r} starts with none of {COMMANDS}"
    return found


def files(page: Path) -> dict[str, str]:
    """The files that a page shows: name -> text."""
    blocks = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', page.read_text(encoding="utf-8"), re.M | re.S)
    return dict(blocks)


ALL = [command for page in PAGES for command in commands(page)]
RUN_TEXTS = {command.text for command in ALL if command.page in RUN and command.reason is None}


def test_the_pages_have_commands_and_the_collector_finds_them():
    assert {command.page for command in ALL} >= {"README.md", "bench/README.md", "docs/llama-2.md", *RUN}
    assert len(ALL) > 30


@pytest.mark.slow
@pytest.mark.parametrize("command", ALL, ids=str)
def test_every_command_is_run_or_has_a_reason_and_a_parser_that_reads_it(command):
    assert command.text in RUN_TEXTS or command.reason, f"{command} is neither run nor listed"
    program, *arguments = command.words
    if program == "lowrank":
        build_parser().parse_args(arguments)  # exits if it cannot
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert arguments[0] in targets
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = re.findall(r"-e '\.\[([\w,-]+)\]'", command.text)
        assert asked and set(asked[0].split(",")) <= extras.keys()
    elif program == "torchrun":
        build_parser().parse_args(arguments[arguments.index("lowrank") + 1 :])
    elif program == "python":
        assert arguments[0] == "-m" and find_spec(arguments[1])
    else:
        pytest.fail(f"{command}: how is {program} checked?")


def test_what_makes_a_command_short_is_of_a_command_that_is_there():
    for beginning in QUICK:
        assert any(text.startswith(beginning) for text in RUN_TEXTS)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """An empty folder with the files that the pages show."""
    folder = tmp_path_factory.mktemp("pages")
    for name in RUN:
        for file, text in files(ROOT / name).items():
            (folder / file).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:the warm-up takes")  # of a run that was made short
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_from_top_to_bottom(page, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    run = [command for command in commands(ROOT / page) if command.reason is None]
    assert run
    for command in run:
        quick = next((more for beginning, more in QUICK.items() if command.text.startswith(beginning)), "")
        _, *arguments = shlex.split(f"{command.text} {quick}")
        assert main(arguments) == 0, f"{command}: {capsys.readouterr().err}"


def test_every_page_is_in_the_site_and_the_site_fetches_nothing():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in config, f"{page.name} is in no part of the navigation"
    assert "font: false" in config and "strict: true" in config


def test_every_path_of_ours_on_a_page_is_there():
    named = {
        (page.name, path)
        for page in PAGES
        for path in re.findall(r"`([a-z]+/[\w./-]+)`", page.read_text(encoding="utf-8"))
        if path.split("/")[0] in (*FOLDERS, "tests", "docs")
    }
    assert len(named) > 100
    assert [(page, path) for page, path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_house_names_every_folder_of_the_package():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = [
        f"{above}{folder.name}/"
        for above, parent in (("lowrank/", "lowrank"), ("", "kernels"), ("", "train"), ("", "eval"))
        for folder in (ROOT / parent).iterdir()
        if (folder / "__init__.py").exists()
    ]
    assert len(folders) > 20
    assert [folder for folder in folders if f"`{folder}`" not in text] == []


def test_the_api_page_has_the_public_names_and_nothing_that_is_not_there():
    named = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.M)
    public = {f"lowrank.{name}" for name in (*lowrank.__all__, "inspect")}
    assert {name for name in named if name.count(".") == 1} == public
    for name in named:
        try:
            import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert getattr(import_module(module), attribute).__doc__, f"{name} has no docstring"


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every docstring of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


@pytest.mark.slow
def test_no_docstring_begins_as_half_a_sentence():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in docstrings(path)
        if re.match(r"(What|Whether|Of|How)\b", text)
    ]
    assert not found, "a docstring names what it describes:\n" + "\n".join(found)
