"""Facts and figures.

fact             a value, its type, and its printed form
formula          the grammar of formulas and conditions
figures          figures as they are written in a text
figure_matching  when a figure of a text states a fact of a record
"""
