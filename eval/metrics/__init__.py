"""Scores of texts, and how far they can be trusted.

metric        a score as a function of sums over items
bootstrap     intervals by resampling; rank_correlation: of predictions with what came; student: over a few runs
faithfulness  figures of a document against its record
tally         the end of a text in one sentence
identities, mentions, format_check, memorisation, overlap, repetition, perplexity, fingpt
"""
