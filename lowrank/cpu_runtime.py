"""Settings of the libraries with which torch computes on a CPU; they read them once, from the environment.

oneDNN keeps the code and the memory that it made for every shape of a product, of up to 1,024 shapes, and torch's layer
over it as many again. Rows of a batch, prompts and documents have hundreds of lengths, each of them some twenty shapes:
a run of bfloat16 grew by a third of a megabyte a shape (embedded base: from 0.39 to 1.45 GB in 180 steps). PRIMITIVES
of them are as many as one length needs; those of another length are made again, and no number changes.

A thread of OpenMP that waits for others spins: for 5 ms with GNU's, 200 ms with LLVM's. Where another job has one of
the cores, that is time which the thread that is waited for does not have. SPINS, some 0.1 ms, are longer than a barrier
of ours takes where every thread has a core.
"""

import os
from collections.abc import MutableMapping

PRIMITIVES = 32
SPINS = 10_000
BLOCK_MS = 1

KEPT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(PRIMITIVES), "LRU_CACHE_CAPACITY": str(PRIMITIVES)}
WAITING = {"GOMP_SPINCOUNT": str(SPINS), "KMP_BLOCKTIME": str(BLOCK_MS)}


def set_defaults(environment: MutableMapping[str, str] = os.environ) -> None:
    """Puts in what the caller has not set: KEPT until torch's first product, WAITING until torch is imported.

    Later it is without effect; OMP_WAIT_POLICY says how threads wait, and leaves WAITING out.
    """
    for name, value in {**KEPT, **({} if "OMP_WAIT_POLICY" in environment else WAITING)}.items():
        environment.setdefault(name, value)
