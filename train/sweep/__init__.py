"""Many hats trained at once over one base, and which of them is worth its size.

axes      the points of a sweep: what is swept, and what may not be
together  the batches of several hats in one pass
plan      memory, before the work
run       the sweep: each hat's own run, batch by batch, together
results   held-out losses compared, entry by entry
write     results.json, and the page
page      the comparison as one page
"""
