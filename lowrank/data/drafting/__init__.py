"""A kind of document, drafted from documents of it: a TOML file to be read and edited.

columns    labels and values of many records -> fields with a type and other names
formulas   figures that follow from others -> formulas in our own grammar
wordings   documents -> sections, and sentences with facts left open
draft      all of it as the text of a kind's file, and what was not understood
"""
