"""Going on: which process has the folder of a run, what may change in it, and what becomes of a run that is stopped.

folder              the folder of a run: its lock, its leftovers, and the wish to end it
identity            the settings that must be the same for a run to go on
phases              the stretches of steps that have a schedule each
signals             SIGINT, SIGTERM and SIGHUP, kept until a batch is done
checkpoint_adapter  the hat of any checkpoint
"""
