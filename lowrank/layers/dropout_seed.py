"""The stream of random numbers of a dropout: a function of (seed, batch, layer) and of nothing else.

A run that goes on from a checkpoint draws what it would have drawn, a block that is computed again draws what it drew
before, and nothing that draws from torch's own generator in between changes either.
"""

from dataclasses import dataclass


@dataclass
class BatchCounter:
    """Which batch of the run it is, counted from 0 over all steps and processes; the training step moves it on."""

    seed: int
    batch: int = 0


@dataclass(frozen=True)
class DropoutSeed:
    """The stream of one layer."""

    counter: BatchCounter
    layer: int

    @property
    def seed(self) -> int:
        """A 63-bit mix of seed, batch and layer (the finalizer of splitmix64), so that neighbours share nothing."""
        mixed = 0
        for part in (self.counter.seed, self.counter.batch, self.layer):
            mixed = (mixed + part + 1) * 0x9E3779B97F4A7C15 % 2**64
            mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
            mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
            mixed ^= mixed >> 31
        return mixed >> 1
