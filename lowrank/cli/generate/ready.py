"""The time until `lowrank generate` can write, in a process of its own, after torch has been imported.

    python -m lowrank.cli.generate.ready FOLDER

prints {"torch_s": ..., "ready_s": ..., "peak_resident_bytes": ...}: the import of torch, which any program of its kind
waits for, and what comes behind it, arguments, imports, tokenizer and base, up to the first prompt.
"""

import json
import sys
import time

from ...bench.models.resident import peak_resident_bytes
from ..start import import_torch


def main(folder: str) -> None:
    """Starts as `lowrank generate FOLDER --prompt TEXT` does, and prints the figures."""
    begun = time.perf_counter()
    import_torch()
    imported = time.perf_counter()
    from ...model import generate  # noqa: F401 (imported when the first text begins)
    from .. import build_parser
    from ..arguments import writing_dtype
    from . import open_session, read_sampling

    args = build_parser("generate").parse_args(["generate", folder, "--prompt", "The balance"])
    args.dtype, args.dtype_reason = writing_dtype(args.dtype, args.device)
    open_session(args, read_sampling(args))
    ready = time.perf_counter()
    figures = {"torch_s": round(imported - begun, 4), "ready_s": round(ready - imported, 4)}
    print(json.dumps({**figures, "dtype": args.dtype, "peak_resident_bytes": peak_resident_bytes()}))


if __name__ == "__main__":
    main(sys.argv[1])
