"""The base that comes with the package: a small Llama in Meta's own format, trained by `make base`."""

from pathlib import Path

EMBEDDED = "embedded"


def base_folder(path: str | Path) -> Path:
    """The folder of a base: the embedded one for "embedded", else the path itself."""
    return Path(__file__).parent / "base" if str(path) == EMBEDDED else Path(path)
