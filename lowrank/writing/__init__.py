"""Documents out: each in the format that somebody can send, and beside it an audit of its figures.

audit       every figure of a text with the cell of its fact, facts that it does not use, what was not understood
audit_page  the audit as a page: the text beside its record
markdown    the text as HTML: headings, lists and tables, and nothing else that HTML could do
docx_file   the text as a DOCX file, with Word's own headings, lists and tables
"""
