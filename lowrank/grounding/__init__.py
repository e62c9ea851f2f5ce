"""Grounded decoding: no figure is written that is not in the facts.

decoding      the mask over tokens, for `generate`
automaton     the characters that may follow a text
number_forms  the written forms of the facts of a record
old_figures, old_matching  figures in dollars alone, which the three above still read by
"""
