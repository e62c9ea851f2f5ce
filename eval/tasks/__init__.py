"""Tasks of the grid: what is asked, and how answers are scored.

task         the interface
documents    from a record to its document
entities     people, organizations and locations of a sentence
sentiment    tweets
questions    FiQA
public_data  the public sets, out of local files
generate     texts for prompts
"""
