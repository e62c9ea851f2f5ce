"""The rules of NF4 in blocks, each with what breaks where it is not kept.

W [N, K] is flattened row by row and cut into blocks; a later rule is only judged by outputs that earlier ones enter too,
so the first that breaks is the one to look at.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """A rule by its name; says is what holds, and why is what a break of it usually is."""

    name: str
    says: str
    why: str


RULES = (
    Rule("levels", "the 16 levels are the float32 numbers of QLoRA's appendix E", "decimals were cut, or quantiles computed anew"),
    Rule("nibble-order", "of two weights in a byte the first is in the high nibble", "nibbles are swapped"),
    Rule("blocks", "a maximum belongs to `blocksize` consecutive weights of the flattened W", "maxima are taken by column or by row"),
    Rule("blocksizes", "blocks of 32 to 4096 weights work as those of 64 do", "64 is written into the code"),
    Rule("straddling-rows", "a block goes on into the next row where K is no multiple of the blocksize", "each row begins a block"),
    Rule("tail", "the last block may be short; an odd count is completed with code 7", "the tail is left out, or padded otherwise"),
    Rule("float32-product", "w = level * maximum, one product in float32", "factors are rounded to 16 bits first"),
    Rule("rounding-bfloat16", "w in bfloat16 is the float32 product, rounded once to nearest even", "it is cut, or its factors are rounded"),
    Rule("rounding-float16", "w in float16 is the float32 product, rounded once to nearest even", "it is cut, or its factors are rounded"),
    Rule("absmax", "a block's maximum is max abs(w), float32", "the sign, or a short float, is in it"),
    Rule("nearest-level", "the code of a weight is the nearest level's", "levels are searched wrongly"),
    Rule("thresholds", "two levels part at their float32 midpoint", "midpoints are computed in another precision"),
    Rule("ties", "a weight at a midpoint takes the lower level", "a tie goes up, or to even"),
    Rule("reciprocal", "w is scaled by the float32 reciprocal of the maximum, not divided", "w / absmax, or an approximate reciprocal"),
    Rule("input-types", "bfloat16 and float16 are widened before anything is computed", "w is scaled in its own type"),
    Rule("zero-block", "a block of zeros has code 7 and maximum 0", "0 / 0 goes through the comparisons"),
    Rule("denormal-block", "a maximum whose reciprocal overflows is divided by", "infinity times w, or denormals flushed to zero"),
    Rule("not-finite", "NaN and infinity are refused, or seen in what comes back", "they become ordinary weights in silence"),
    Rule("nested-levels", "the 256 levels of the signed dynamic 8-bit code", "another map, or another sign"),
    Rule("nested-blocks", "a maximum of maxima belongs to 256 of them", "another nested blocksize"),
    Rule("nested-sum", "maximum = level8 * nested maximum + offset, two roundings in float32", "a fused multiply-add, or the offset left out"),
    Rule("nested-offset", "the offset is the mean of the maxima", "it is left out, or a median"),
    Rule("nested-absmax", "a nested maximum is max abs(maximum - offset) of its 256", "the offset is taken off afterwards"),
    Rule("nested-codes", "an 8-bit code is at most one from that of a back end of bitsandbytes", "another map"),
    Rule("nested-choice", "all 8-bit codes are those of one back end of bitsandbytes", "a search of one's own"),
    Rule("one-hot", "x W^T of a one-hot x is a column of W, bit for bit", "weights of the product are not those of dequantize"),
    Rule("one-hot-straddling", "the same where blocks go on into the next row, and with a tail", "each row begins a block"),
    Rule("product", "x W^T is as near to float64 as float32 sums are", "sums in 16 bits, or weights rounded"),
)  # fmt: skip
BY_NAME = {rule.name: rule for rule in RULES}
