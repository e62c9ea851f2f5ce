"""Conversations -> token ids and labels.

template       how a task is put before a model
chat_template  the model's own chat template: what is asked, and what is learned
chat_process   the same template at work, in a process of its own
chat_child     what that process runs
jinja_form     our templates for programs that read chat templates
batching       token ids, labels, and batches of rows of similar length
packing        several examples in one row
token_view     every token of a row with its label, position and segment
"""
