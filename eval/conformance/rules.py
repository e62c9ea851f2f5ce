"""The rules of NF4 in blocks, each with what breaks where it is not kept.

W [N, K] is flattened row by row and cut into blocks. A later rule is judged by outputs that earlier ones enter too,
so the first that breaks is the one to look at.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """A rule by its name; says is what holds, and usually what a break of it is."""

    name: str
    says: str
    usually: str


_TABLE = """
levels | the 16 levels are the float32 numbers of QLoRA's appendix E | decimals were cut, or quantiles computed anew
nibble-order | of two weights in a byte the first is in the high nibble | nibbles are swapped
blocks | a maximum belongs to `blocksize` consecutive weights of the flattened W | maxima are taken down the columns
float32-product | w = level * maximum, one product in float32 | factors are rounded to 16 bits first
rounding-bfloat16 | w in bfloat16 is the float32 product, rounded once to even | it is cut, or its factors are rounded
rounding-float16 | w in float16 is the float32 product, rounded once to even | it is cut, or its factors are rounded
absmax | a block's maximum is max abs(w), float32 | the sign, or a short float, is in it
nearest-level | the code of a weight is the nearest level's | levels are searched wrongly
thresholds | two levels part at their float32 midpoint | midpoints are computed in another precision
ties | a weight at a midpoint takes the lower level | a tie goes up, or to even
reciprocal | w is scaled by the float32 reciprocal of the maximum | w is divided, or the reciprocal is approximate
input-types | bfloat16 and float16 are widened before anything is computed | w is scaled in its own type
blocksizes | blocks of 32 to 4096 weights work as those of 64 do | 64 is written into the code
straddling-rows | a block goes on into the next row where K is no multiple of its size | each row begins a block
tail | the last block may be short; an odd count is completed with code 7 | the tail is left out, or filled otherwise
zero-block | a block of zeros has code 7 and maximum 0 | 0 / 0 goes through the comparisons
denormal-block | a maximum whose reciprocal overflows is divided by | infinity times w, or denormals are flushed to zero
not-finite | NaN and infinity are refused, or seen in what comes back | they become ordinary weights in silence
nested-levels | the 256 levels of the signed dynamic 8-bit code | another map, or another sign
nested-blocks | a maximum of maxima belongs to 256 of them | another nested blocksize
nested-sum | maximum = level8 * nested maximum + offset, rounded twice | a fused multiply-add, or the offset is left out
nested-offset | the offset is the mean of the maxima | it is left out, or a median
nested-absmax | a nested maximum is max abs(maximum - offset) of its 256 | the offset is taken off afterwards
nested-codes | an 8-bit code is at most one from that of a back end of bitsandbytes | another map
nested-choice | all 8-bit codes are those of one back end of bitsandbytes | a search of one's own
one-hot | x W^T of a one-hot x is a column of W, bit for bit | the product's weights are not those of dequantize
one-hot-straddling | the same where blocks go on into the next row, and with a tail | each row begins a block
product | x W^T is as near to float64 as float32 sums are | sums in 16 bits, or factors rounded
"""
RULES = tuple(Rule(*line.split(" | ")) for line in _TABLE.strip().splitlines())
BY_NAME = {rule.name: rule for rule in RULES}
