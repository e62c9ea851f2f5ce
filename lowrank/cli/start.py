"""The import of torch by verbs that write at once."""

import gc
import sys


def import_torch() -> None:
    """Imports torch without collecting garbage meanwhile, and keeps what it brought out of every later collection.

    It brings 170,000 objects that stay. To walk them takes 0.1 s: once or twice while torch is imported, once in most
    starts behind it, and again and again while texts are written. In a process that has torch already nothing is done.
    """
    if "torch" in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import torch  # noqa: F401 (for those that import it next)

        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
