"""Pages that need no network and no script.

page      the frame, the style, tables
citation  the BibTeX at the end of an x-ray
svg       primitives of every drawing: frame, axes, ticks, text, legend
plots     lines, histograms, bars, heat maps, the loss curve
panels    grouped bars, and differences with intervals
sections  the grid, the training and the bytes of a report
"""
