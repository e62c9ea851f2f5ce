"""Pages that need no network and no script.

page             the frame and the look
charts, plots    inline SVG
intervals_chart  differences with intervals
"""
