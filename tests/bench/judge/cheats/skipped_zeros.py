"""Leaves out the columns in which x is zero."""

from nf4 import decoded


def custom_kernel(data):
    x = data[0]
    kept = (x != 0).any(dim=0)
    return x[:, kept] @ decoded(data)[:, kept].T
