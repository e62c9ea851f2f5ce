"""Financial documents and the records that they state.

document      a seeded record, and the Markdown document that states it
document_set  the set on disk
kinds         the ten kinds of document
splits, names what keeps training and test apart
derived       figures that follow from a record by a rule
reading       records that others wrote
consistency   an entry held against its own facts
"""
