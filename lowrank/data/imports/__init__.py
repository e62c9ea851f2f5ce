"""Files of examples that others wrote.

item       a row before its format is known
tables     CSV, XLSX, Parquet -> rows
files      any file -> rows
turns      messages -> prompts with their answers
preferences  rows with a chosen and a rejected answer
formats    which format a file is in, and the conversation of a row
examples   the one reader of files to learn from, and what it refuses
letters    a folder of letters beside a table of their facts
importing  examples -> documents with their records -> entries with typed facts
"""
