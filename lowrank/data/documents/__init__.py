"""Financial documents and the records that they state.

document      a seeded record, and the Markdown document that states it
spoiled   documents with figures spoiled on purpose, as the worse of two answers
document_set  the set on disk
kind          a kind of document: its fields, sections and wordings
kind_file     kinds as TOML files: reading and checks
kinds         the ten kinds, a file each
draws         rules by which fields draw their values
splits, names ranges and names by which training and test differ
derived       figures that follow from a record by a rule
rule_names    the names of these rules
reading       records that others wrote
facts_record  one of them, or a table of them, to write documents of
fact_files    records of files: text, CSV, XLSX, JSON
fact_lines    labels with values: lines, tables, CSV, JSON
fact_tables   records of rows: under a head, or a label and a value each
samples       invented documents of a kind, and their table
consistency   checks of an entry against its own facts
"""
