"""Counts the texts that transformers cuts otherwise than the library whose file it reads; no test, run by hand.

    PYTHONPATH=tests/helpers python tests/model/tokenizer/count_transformers.py truth DIR      # files, texts, their ids
    PYTHONPATH=TARGET python tests/model/tokenizer/count_transformers.py count DIR

TARGET is a folder of `pip install --target TARGET transformers==VERSION sentencepiece protobuf tiktoken`. The truth is
SentencePiece itself for Llama 2, `tokenizers` on the file for byte-level BPE, tiktoken on a rank file for Llama 3.
Special tokens that are written out in a text are text (`split_special_tokens`, where a version has it), as ours are; a
text without "<" has none.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FOLDERS = ("llama2", "smollm2", "llama3-json", "llama3-ranks")


def write_truth(folder: Path) -> None:
    """The folders as a model has them, 10,000 random texts, and the ids of each text by the library of the file."""
    import base64
    import os
    import shutil

    import sentencepiece
    import tiktoken
    import tokenizers
    from tiny_tokenizers import random_texts, rank_file, write_byte_level

    from lowrank.model.tokenizer.rank_pieces import PATTERN

    texts = random_texts(10_000)
    (folder / "texts.json").write_text(json.dumps(texts))
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps({"model_type": "llama"}))
    shutil.copy(os.environ["LOWRANK_LLAMA2_TOKENIZER"], folder / "llama2/tokenizer.model")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "llama2/tokenizer.model"))
    ids: dict[str, list[list[int]]] = {"llama2": [pieces.encode(text) for text in texts]}
    for name, kind in (("smollm2", "GPT2Tokenizer"), ("llama3-json", "PreTrainedTokenizerFast")):
        file = write_byte_level(folder / name, llama3=name == "llama3-json", tokenizer_class=kind) / "tokenizer.json"
        content = json.loads(file.read_text())
        # As versions before 0.20 of the library wrote merges, and all read them.
        content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
        file.write_text(json.dumps(content))
        library = tokenizers.Tokenizer.from_file(str(folder / name / "tokenizer.json"))
        library.encode_special_tokens = True
        ids[name] = [library.encode(text, add_special_tokens=False).ids for text in texts]
    (folder / "llama3-ranks/tokenizer.model").write_bytes(rank_file())
    lines = [line.split() for line in rank_file().splitlines()]
    ranks = {base64.b64decode(piece): int(rank) for piece, rank in lines}
    encoding = tiktoken.Encoding("llama3", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    ids["llama3-ranks"] = [encoding.encode(text, disallowed_special=()) for text in texts]
    (folder / "ids.json").write_text(json.dumps(ids))


def count(folder: Path) -> None:
    """A line a way of reading a folder: how many texts have other ids, and an example."""
    import transformers

    texts, ids = (json.loads((folder / name).read_text()) for name in ("texts.json", "ids.json"))
    print(f"transformers {transformers.__version__}")
    for name, how, read in readers(folder):
        try:
            encode = read()
        except Exception as error:  # whatever a version raises is what is to be told of it
            print(f"{name:14} {how:40} cannot read it: {type(error).__name__}: {str(error).splitlines()[0][:90]}")
            continue
        wrong = [text for text, right in zip(texts, ids[name], strict=True) if encode(text) != right]
        plain = [text for text in wrong if "<" not in text]
        example = f"   {ascii(min(plain or wrong, key=len))[:70]}" if wrong else ""
        print(f"{name:14} {how:34} {len(wrong):6,} of {len(texts):,}, {len(plain):,} without '<'{example}", flush=True)


def readers(folder: Path) -> Iterator[tuple[str, str, Callable[[], Callable[[str], list[int]]]]]:
    """(folder, how it is read, a function that gives the encoder)"""
    import transformers

    def ready(tokenizer: Any) -> Callable[[str], list[int]]:
        options = {"add_special_tokens": False, "split_special_tokens": True}
        try:
            tokenizer.encode("a", **options)
        except TypeError:  # the fast ones of earlier versions have no such option
            del options["split_special_tokens"]

        def encode(text: str) -> list[int]:
            found: list[int] = tokenizer.encode(text, **options)
            return found

        return encode

    one = folder / "llama2"
    for kind in ("LlamaTokenizer", "LlamaTokenizerFast"):
        for legacy in (True, False):
            yield (
                "llama2",
                f"{kind}(legacy={legacy})",
                lambda kind=kind, legacy=legacy: ready(getattr(transformers, kind).from_pretrained(one, legacy=legacy)),
            )
    for name in FOLDERS[1:]:
        yield (
            name,
            "PreTrainedTokenizerFast",
            lambda name=name: ready(transformers.PreTrainedTokenizerFast.from_pretrained(folder / name)),
        )
        yield name, "AutoTokenizer", lambda name=name: ready(transformers.AutoTokenizer.from_pretrained(folder / name))


if __name__ == "__main__":
    {"truth": write_truth, "count": count}[sys.argv[1]](Path(sys.argv[2]))
