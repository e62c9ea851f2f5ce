"""Small tokenizers, made on the spot: byte-level BPE as SmolLM2's and Llama 3's, and a rank file of tiktoken."""

import base64
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from lowrank.data.documents.document import make_documents
from lowrank.model.tokenizer.rank_pieces import PATTERN

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@cache
def _texts() -> tuple[str, ...]:
    return tuple(entry.output for entry in make_documents(40, seed=1, split="train"))


def byte_level(size: int = 700, *, llama3: bool = False) -> Tokenizer:
    """Byte-level BPE with digits apart as SmolLM2 has it, or with Llama 3's pattern and begin-of-text before a text."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=llama3))
    cut = pre_tokenizers.Split(Regex(PATTERN), "isolated") if llama3 else pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not llama3)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True, normalized=False) for text in SPECIAL]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    if llama3:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
    return tokenizer


def write_byte_level(folder: Path, *, llama3: bool = False, **config: Any) -> Path:
    """A folder with tokenizer.json and tokenizer_config.json; its end token is <|im_end|>."""
    folder.mkdir(exist_ok=True, parents=True)
    byte_level(llama3=llama3).save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<|endoftext|>" if llama3 else "<|im_start|>", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named | config))
    return folder


def rank_file(size: int = 600) -> bytes:
    """A rank file in tiktoken's form: the bytes, then merges of neighbours as they are frequent in documents."""
    letters = {letter: byte for byte, letter in enumerate(_letters())}
    vocabulary = byte_level(size).get_vocab(with_added_tokens=False)
    ranked = sorted((token, text) for text, token in vocabulary.items() if text not in SPECIAL)
    pieces = [bytes(letters[letter] for letter in text) for _, text in ranked]
    lines = [base64.b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(pieces)]
    return b"".join(lines)


def _letters() -> list[str]:
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in own else next(others)) for byte in range(256)]


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of up to 60 characters from all of Unicode, from documents, white space, and special tokens written out."""
    random = Random(seed)
    words = " ".join(_texts()[:10]).split(" ")
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(random.randrange(8)):
            match random.randrange(5):
                case 0:
                    parts.append(random.choice(words))
                case 1:
                    parts.append(random.choice([" ", "  ", "\n", "\n\n", "\t", " \n ", "\r\n", "\u00a0", "\u3000"]))
                case 2:
                    parts.append(random.choice([*SPECIAL, "<s>", "</s>", "<unk>", "<0x0A>", "[INST]", "'s", "12345"]))
                case _:
                    top = random.choice([0x80, 0x800, 0x10000, 0x110000])
                    codes = (random.randrange(top) for _ in range(random.randrange(12)))
                    parts.append("".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000))
        texts.append("".join(parts))
    return texts
