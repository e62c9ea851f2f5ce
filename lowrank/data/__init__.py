"""Training data: records and documents, files of others, the mixture, and the way to token ids.

facts      typed facts, formulas, figures in a text
documents  generated financial documents and the kinds they are of
imports    files of examples that others wrote
drafting   a kind of document, drafted from documents of it
mixture    the instruction set out of four public data sets
encoding   templates, token ids, batches
corpus     the training text of the embedded base
jsonl      JSON, and files of JSON lines
workbook   XLSX, opened if it does not unpack to too much
"""
