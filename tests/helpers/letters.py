"""A tokenizer of single letters."""

EOS = 2


class Letters:
    """A tokenizer whose ids 3 .. 63 are characters: enough to drive `generate`."""

    eos_ids = (EOS,)
    has_dummy_prefix = False

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        return [1] * bos + [ord(letter) - 64 + 3 for letter in text] + [EOS] * eos

    def token_bytes(self, token: int) -> bytes:
        return chr(token + 64 - 3).encode()

    def rows_without_piece(self, rows: int) -> list[int]:
        return []

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(token + 64 - 3) for token in ids)
