"""Grounded decoding: no figure is written that is not in the facts, nor under another name than its own.

decoding      the mask over tokens, for `generate`
vocabulary    a tokenizer's tokens by their characters and words
automaton     the characters that may follow a text
states        a text so far, as the automaton sees it
leads         the name that is written first where a figure has none
loops         what must not come a third time
names         which fact the words before a figure are about
directions    the words of rising and falling that the record contradicts
number_forms  the written forms of a fact's figure
words         scales, units, and words that make another name of a name
"""
