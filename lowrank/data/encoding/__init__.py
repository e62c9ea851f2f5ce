"""Conversations -> token ids and labels.

template    how a task is put before a model
jinja_form  the same for programs that read chat templates
batching    token ids, labels, and batches of rows of similar length
packing     several examples in one row
token_view  every token of a row with its label, position and segment
"""
