"""The rules of the judge, in the order in which they are looked at; those of products are NF4's own."""

from lowrank.eval.conformance.rules import BY_NAME as NF4
from lowrank.eval.conformance.rules import Rule

_TOLD = """
runs | every call is answered | it raises, or crashes
in-time | every call is answered within the limit | it hangs
plain-tensor | the answer is a dense float32 torch.Tensor [M, N] on the CPU, and no subclass | it is computed when read
guard | nothing is written but y | a loop ends too late, or looks for what lies behind
inputs-unchanged | x, codes, absmax and codebook stay as they are given | they are scratch memory to it
complete | all of y is written when the call returns | work is put off, to be done for several calls at once
at-rest | once a call has returned, nothing is computed or written | a thread goes on
processes | no process is left behind | one goes on, out of sight
clock | the clocks of the process tell the time | they are patched
fresh | y belongs to the inputs of this call | an answer, or a decoded weight, is kept from an earlier one
exact-sums | x W^T of small integers, which has no rounding, is exact | NF4's levels are written into the code
"""
_OWN = tuple(Rule(*line.split(" | ")) for line in _TOLD.strip().splitlines())
RULES = (*_OWN[:-1], *(NF4[name] for name in ("not-finite", "one-hot", "one-hot-straddling", "product")), _OWN[-1])
BY_NAME = {rule.name: rule for rule in RULES}


class RuleBroken(Exception):
    """A submission broke a rule: its name, and what was seen."""

    def __init__(self, rule: str, seen: str) -> None:
        assert rule in BY_NAME, rule
        super().__init__(f"{rule}: {seen}")
        self.rule, self.seen = rule, seen
