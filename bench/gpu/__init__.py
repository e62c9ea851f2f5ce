"""The first call on a real device: everything once, most valuable first.

call    runs the stages one after another, each in a process of its own, and goes on where an earlier call ended
stages  what is run, in which order, for how long at most
smoke   every kernel on a small case against plain torch
"""
