"""The grid: every hat, and none, on every precision of one base.

grid           evaluates it
columns        a base on a precision with a hat
cache          what is done so far, on disk
comparison     differences with intervals
summary        what a grid says, in sentences
report         a finished grid as data and Markdown
page           as one HTML file
document_page  the page of a run, with its documents
"""
