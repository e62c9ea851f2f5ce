"""Grounded decoding: no figure is written that is not in the facts.

decoding      the mask over tokens, for `generate`
automaton     what may be written, a character at a time
number_forms  how the facts of a record may be written
"""
