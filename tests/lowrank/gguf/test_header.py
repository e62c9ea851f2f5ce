"""The header of a GGUF file: what it says is read, and what it cannot truly say is refused in one line."""

import struct
from pathlib import Path
from random import Random

import gguf
import numpy as np
import pytest
from gguf_files import TINY, random_tensors, write_gguf_file

from lowrank.gguf.header import TYPES, is_gguf, read_header
from lowrank.gguf.read import open_gguf

VALUES = TINY | {
    "tokenizer.ggml.tokens": ["<unk>", "ä", "\N{LOWER ONE EIGHTH BLOCK}a"],
    "tokenizer.ggml.scores": [0.0, -1.0, -2.5],
    "tokenizer.ggml.add_bos_token": True,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with every sort of value, small enough to be spoiled byte by byte."""
    shapes = {"token_embd.weight": (3, 4), "output_norm.weight": (4,)}
    return write_gguf_file(tmp_path_factory.mktemp("gguf") / "small.gguf", random_tensors(0, shapes), VALUES)


def one_line(error: pytest.ExceptionInfo[ValueError], path: Path) -> str:
    text = str(error.value)
    assert "\n" not in text and str(path) in text
    return text


def test_values_and_places_are_those_that_the_gguf_package_reads(small: Path) -> None:
    header, reader = read_header(small), gguf.GGUFReader(small)
    theirs = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in header.values.items()}
    assert plain == theirs
    found = {(info.name, info.shape, info.start, info.nbytes) for info in header.tensors.values()}
    assert found == {
        (tensor.name, tuple(map(int, reversed(tensor.shape))), tensor.data_offset, tensor.n_bytes)
        for tensor in reader.tensors
    }
    assert header.architecture == "llama" and header.kind == "model" and is_gguf(small)


def test_the_sizes_of_blocks_are_those_of_the_gguf_package() -> None:
    for number, type in TYPES.items():
        theirs = gguf.GGMLQuantizationType(number)
        assert (theirs.name, *gguf.GGML_QUANT_SIZES[theirs]) == tuple(type)


@pytest.mark.slow
def test_a_file_that_is_cut_anywhere_is_refused_in_one_line(small: Path, tmp_path: Path) -> None:
    content, cut = small.read_bytes(), tmp_path / "cut.gguf"
    end = max(info.start + info.nbytes for info in read_header(small).tensors.values())
    for length in range(end):
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError) as error:
            read_header(cut)
        one_line(error, cut)


@pytest.mark.slow
def test_a_file_with_any_byte_spoiled_is_read_or_refused_in_one_line(small: Path, tmp_path: Path) -> None:
    content, spoiled, random = small.read_bytes(), tmp_path / "spoiled.gguf", Random(0)
    refused = 0
    for place in range(len(content) - 64):
        changed = bytearray(content)
        changed[place] = random.choice((0xFF, 0x7F, 0x80, content[place] ^ 1))
        spoiled.write_bytes(changed)
        try:
            open_gguf(spoiled)
        except ValueError as error:
            assert "\n" not in str(error) and str(spoiled) in str(error)
            refused += 1
    assert refused > len(content) // 4


def header_of(*, tensors: int = 0, values: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, values) + rest


def key(name: bytes, type: int) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", type)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"PK\3\4" + bytes(60), "not a GGUF file: it begins with b'PK"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version must be 2 or 3, got 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian byte order"),
        (header_of(tensors=2**63), "the number of tensors is 9,223,372,036,854,775,808, with"),
        (header_of(values=2**40), "the number of values is 1,099,511,627,776, with"),
        (header_of(values=1, rest=struct.pack("<Q", 2**62) + bytes(64)), "the key of value 0 needs"),
        (header_of(values=1, rest=key(b"a", 8) + struct.pack("<Q", 2**61) + bytes(64)), "a needs 2,305,843"),
        (header_of(values=1, rest=key(b"a", 9) + struct.pack("<IQ", 8, 2**60) + bytes(64)), "a: its length is"),
        (header_of(values=1, rest=key(b"a", 9) + struct.pack("<IQ", 11, 2**60) + bytes(64)), "a needs"),
        (header_of(values=1, rest=key(b"a", 9) + struct.pack("<IQ", 9, 1) + bytes(64)), "an array of arrays"),
        (header_of(values=1, rest=key(b"a", 77) + bytes(64)), "a is a value of type 77"),
        (header_of(values=1, rest=key(b"\xff", 4) + bytes(64)), "the key of value 0 is not UTF-8"),
        (header_of(values=2, rest=2 * (key(b"a", 4) + bytes(4))), "a stands there twice"),
        (
            header_of(values=1, rest=key(b"general.alignment", 4) + struct.pack("<I", 33)),
            "general.alignment must be a power of two, got 33",
        ),
        (
            header_of(tensors=1, rest=key(b"t", 2) + struct.pack("<QQIQ", 2**63, 2**63, 0, 0) + bytes(64)),
            "truncated: t ends at byte",
        ),
        (header_of(tensors=1, rest=key(b"t", 7) + bytes(64)), "t must have 1 to 4 axes, got 7"),
        (header_of(tensors=1, rest=key(b"t", 1) + struct.pack("<QIQ", 4, 99, 0)), "t is of ggml's type 99"),
        (header_of(tensors=1, rest=key(b"t", 1) + struct.pack("<QIQ", 33, 8, 0)), "t: Q8_0 must have rows of 32s"),
        (header_of(tensors=1, rest=key(b"t", 1) + struct.pack("<QIQ", 0, 0, 0)), "must have rows of 1s, got [0]"),
        (header_of(tensors=1, rest=key(b"t", 1) + struct.pack("<QIQ", 4, 0, 3) + bytes(99)), "a multiple of 32, got 3"),
    ],
)
def test_what_cannot_be_true_is_refused_before_memory_is_asked_for(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_header(path)
    assert says in one_line(error, path)
