"""The processes that train one adapter together.

single     one process, and the interface that both share
torchrun   several processes
heartbeat  notices a process that died
"""
