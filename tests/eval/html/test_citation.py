"""The BibTeX of the pages."""

import re
from pathlib import Path

import lowrank.inspect
from lowrank.eval.html.citation import PROGRAM, WORKS, citation

ROOT = Path(__file__).resolve().parents[3]


def entries(text: str) -> list[tuple[str, str]]:
    """(kind, key) of each entry, whose braces must close."""
    assert text.count("{") == text.count("}")
    return re.findall(r"^@(\w+)\{(\w+),$", text, flags=re.MULTILINE)


def test_every_entry_is_bibtex_with_a_key_of_its_own() -> None:
    found = [entries(text) for text in (PROGRAM, *WORKS.values())]
    assert [len(one) for one in found] == [1] * len(found)
    assert len({key for ((_, key),) in found}) == len(found)
    for text in WORKS.values():
        found_by = r"^  (?:(?:journal|note) += \{arXiv:\d{4}\.\d{5}|doi +=[ ]\{10\.\d{4,}/\S+)\},$"
        assert re.search(found_by, text, flags=re.MULTILINE), text


def test_the_program_is_that_of_the_citation_file() -> None:
    cff = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for key in ("title", "version", "license"):
        written = re.search(rf"^{key}: \"?(.*?)\"?$", cff, flags=re.MULTILINE)
        entry = re.search(rf"^  {key} += \{{(.*?)\}},$", PROGRAM, flags=re.MULTILINE)
        assert written is not None and entry is not None and written[1] == entry[1]


def test_a_page_cites_the_program_and_its_works() -> None:
    part = citation(["lora"])
    assert "@software{lowrank," in part and "@article{hu2021lora," in part and "dettmers" not in part


def test_the_pages_of_sizes_end_with_it() -> None:
    for page in (lowrank.inspect.params("embedded").plot(), lowrank.inspect.sizes("embedded").plot()):
        assert page.text.count('<details class="cite">') == 1
