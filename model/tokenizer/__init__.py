"""Texts -> token ids and back, for every kind of tokenizer that a Llama comes with.

tokenizer             the tokenizer of a file or a folder: ids, begin and end, special tokens
pieces                the part that differs by kind: a vocabulary, and the way it cuts a text
sentencepiece_pieces  tokenizer.model of Llama 2: SentencePiece
rank_pieces           tokenizer.model of Meta's Llama 3: tiktoken's ranks
json_pieces           tokenizer.json: Hugging Face's tokenizers
roles                 begin, end and added tokens, and the chat template, as the files beside a tokenizer say
"""

from .tokenizer import Tokenizer

__all__ = ["Tokenizer"]
