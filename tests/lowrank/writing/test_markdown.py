"""Markdown as HTML and DOCX: nothing becomes code, no letter is lost, and the figures shown are those of the text."""

import html
import io
import random
import re
import zipfile
from pathlib import Path

import pytest

from lowrank.data.documents.document import make_documents
from lowrank.data.facts.figures import read_figures
from lowrank.data.imports.letters import letter_text
from lowrank.writing.docx_file import docx_bytes, write_docx
from lowrank.writing.markdown import Mark, blocks_of, html_page, shown_text, to_html

docx = pytest.importorskip("docx")

LETTER = """# Credit memo

Dear Ms Ito,
we write about **Aldane**.

## Results
- Revenue: $412.5 million
- Margin: *41.2%*

3. third
7. seventh

| account | value |
|---|--:|
| revenue | $412.5 million |
| =SUM(A1:A9) | +5 |
| @name | -3% |

***
> As stated.
"""


def figures(text: str) -> list[str]:
    return ["".join(figure.text.split()) for figure in read_figures(text)]


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def words_of(data: bytes) -> str:
    """All text of a DOCX file, a line a paragraph or cell."""
    document = docx.Document(io.BytesIO(data))
    lines = []
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            lines += [cell.text + " |" for row in block.rows for cell in row.cells]
        else:
            lines.append(block.text)
    return "\n".join(lines)


def test_headings_lists_and_tables_are_html_and_line_breaks_stay() -> None:
    shown = to_html(LETTER)
    assert "<h1>Credit memo</h1>" in shown and "<h2>Results</h2>" in shown and "#" not in shown
    assert "Ito,<br>\nwe write about <strong>Aldane</strong>" in shown
    assert "<li>Revenue: $412.5 million</li>" in shown and "<em>41.2%</em>" in shown
    assert '<li value="3">third</li>\n<li value="7">seventh</li>' in shown
    assert shown.count("<tr>") == 4 and "<td>=SUM(A1:A9)</td>" in shown
    assert "<blockquote>\n<p>As stated.</p>" in shown and "<hr>" in shown


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a <b onclick=x>b</b> & c",
        "<!-- hidden 5% -->",
        "[here](javascript:alert(1)) and ![dot](http://example.com/p.png)",
        "<http://example.com>\n\n[ref]: http://example.com 'x'\n\n[ref]",
        "```html\n<i>\n```",
        "    <i>indented</i>",
        "&lt;i&gt; &#53; &copy;",
        "| <i> |\n|---|\n| <script> |",
        "\x00\x1b[31m\ud800\ue000x\ue001",
    ],
)
def test_nothing_in_a_text_becomes_a_tag_an_address_or_a_character_that_was_not_there(text: str) -> None:
    page = html_page(text, text)
    article = page[page.index('<article class="letter">') :]
    assert set(re.findall(r"<(/?\w+)", article)) <= {
        *("article", "/article", "p", "/p", "br", "code", "/code", "/main", "/body", "/html"),
        *("table", "/table", "thead", "/thead", "tbody", "/tbody", "tr", "/tr", "th", "/th", "td", "/td"),
    }
    assert "href" not in article and "src=" not in article
    shown = html.unescape(re.sub(r"<[^>]*>", "", to_html(text)))
    assert letters(shown) == letters(text.replace("\ud800", "").replace("\ue000", "").replace("\ue001", ""))
    page.encode("utf-8")
    assert docx_bytes(text, text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("That is **$5** million.", "That is **$5** million."),
        ("The sum is 5*3*2 units.", "The sum is 5*3*2 units."),
        ("| a | b |\n|---|---|\n| 1 | 2 | 3 |", "| a | b |\n|---|---|\n| 1 | 2 | 3 |"),
        ("It is 5\\% of sales.", "It is 5\\% of sales."),
        ("That is **$5 million**.", "That is $5 million."),
    ],
)
def test_markup_that_would_change_a_figure_is_shown_as_it_stands(text: str, shown: str) -> None:
    assert shown_text(blocks_of(text)) == shown
    assert figures(shown_text(blocks_of(text))) == figures(text)


def test_only_the_block_with_the_fault_is_shown_as_it_stands() -> None:
    assert to_html("# T\n\n**$5** million\n\n- **b**\n") == (
        "<h1>T</h1>\n<p>**$5** million</p>\n<ul>\n<li><strong>b</strong></li>\n</ul>\n"
    )


PIECES = [
    *("$5", "1,204", "12.5%", "-3.2%", "(4.1)", "million", "the", "=", "<b>", "&#53;", "[x](y)", " ", " "),
    *("**", "*", "`", "|", "\\", "_", "\n", "\n\n", "- ", "+ ", "1. ", "7) ", "# ", "## ", "> ", "    ", "---\n"),
    "|---|---|\n",
]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(300))
def test_a_random_text_shows_every_letter_and_exactly_its_figures(seed: int) -> None:
    draw = random.Random(seed)
    text = "".join(draw.choice(PIECES) for _ in range(draw.randrange(1, 40)))
    shown = shown_text(blocks_of(text))
    assert letters(shown) == letters(text)
    written = words_of(docx_bytes(text, "t"))
    assert letters(written) == letters(text)
    page = html.unescape(re.sub(r"<[^>]*>", "", to_html(text)))
    numbers = re.findall(r'<li value="(\d+)">', to_html(text))
    assert len(letters(page + "".join(numbers))) == len(letters(text))
    marks = [Mark(figure.start, figure.end, "<mark>", "</mark>") for figure in read_figures(text)]
    marked = to_html(text, marks)
    assert marked.count("<mark>") <= len(marks)
    assert not re.search("[\ue000\ue001]", marked)


@pytest.mark.slow
def test_the_documents_of_all_kinds_say_the_same_in_docx(tmp_path: Path) -> None:
    for number, entry in enumerate(make_documents(20, seed=3, split="test")):
        written = words_of(docx_bytes(entry.output, entry.id))
        assert figures(written) == figures(shown_text(blocks_of(entry.output)))
        assert letters(written) == letters(entry.output)
        path = tmp_path / f"{number}.docx"
        write_docx(path, entry.output, entry.id)
        back = letter_text(path)
        headings = [line for line in entry.output.splitlines() if line.startswith("#")]
        assert [line for line in back.splitlines() if line.startswith("#")] == headings
        assert letters(back) == letters(entry.output)


def test_a_docx_has_words_own_headings_lists_and_tables() -> None:
    document = docx.Document(io.BytesIO(docx_bytes(LETTER, "Memo of <Aldane>")))
    styles = {block.text.split("\n")[0]: block.style.name for block in document.paragraphs}
    assert styles["Credit memo"] == "Title" and styles["Results"] == "Heading 1"
    assert styles["Revenue: $412.5 million"] == "List Bullet" and styles["As stated."] == "Quote"
    assert styles["3. third"] == styles["7. seventh"] == "List"
    (table,) = document.tables
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["account", "value"],
        ["revenue", "$412.5 million"],
        ["=SUM(A1:A9)", "+5"],
        ["@name", "-3%"],
    ]
    assert [row.cells[1].paragraphs[0].alignment for row in table.rows] == [2] * 4
    assert table.rows[0].cells[0].paragraphs[0].runs[0].bold
    assert document.core_properties.title == "Memo of <Aldane>"
    assert document.core_properties.author == ""


def test_no_text_of_a_docx_is_a_field_or_a_formula() -> None:
    with zipfile.ZipFile(io.BytesIO(docx_bytes("=1+1\n\n+5\n\n-5\n\n@x\n\n| =2 |\n|---|\n| @y |", "t"))) as archive:
        xml = archive.read("word/document.xml").decode()
    assert re.findall(r"<w:t[^>]*>([^<]*)</w:t>", xml) == ["=1+1", "+5", "-5", "@x", "=2", "@y"]
    assert not re.search(r"w:(instrText|fldSimple|fldChar)|m:oMath", xml)


@pytest.mark.parametrize(("module", "package"), [("markdown_it", "markdown-it-py"), ("docx", "python-docx")])
def test_a_library_that_is_missing_is_named(
    module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    from lowrank.writing import markdown

    real = importlib.import_module

    def fail(name: str) -> object:
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name)

    markdown._reader.cache_clear()
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ValueError, match=rf"{module} is missing: pip install {package}$"):
        write_docx(tmp_path / "a.docx", "# T", "t")
    assert list(tmp_path.iterdir()) == []
