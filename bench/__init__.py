"""Timings and static costs: ours and the peers, interleaved in one run. Rows are kept in `results/`."""
