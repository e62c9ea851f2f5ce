"""Number formats beside NF4, and which linears of a base deserve more bits.

simulated  formats of 4 bits as a weight that went through them, with their bits a weight
beside     each format's error, and its loss on documents with an interval
mixed      a format for each linear under a budget of bits: sensitivities, the best choice, its curve
functions   both for `lowrank.inspect`, and page their HTML pages
"""
