"""Evaluation of a base and its hats.

grid           every hat on every precision over every task, with intervals; reports and pages
tasks          documents, sentiment, entities, questions: items and how answers are scored
metrics        the measures, and the bootstrap
inspect        x-rays of hats, formats, bases and single linears, each with its page
formats        4-bit formats beside NF4, and a format for each linear under a budget
conformance    NF4 rule by rule: vectors as files, and the rule that an implementation breaks
parity         our outputs against those of other programs, stored or run side by side
html           charts and pages
lm_eval_model  lm-evaluation-harness on our models
"""
