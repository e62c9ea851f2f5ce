"""The instruction set: 15,000 entries out of four public data sets, none of which is part of this package.

    sources -> layouts -> clean -> duplicates -> leakage -> sample -> files, manifest and card

`build.build_mixture` runs the whole way; every other file here holds one of its ideas.
"""
