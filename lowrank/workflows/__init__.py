"""Whole paths through the program, which the command line offers as one verb.

quickstart       quantize, train, evaluate and report on the embedded base
merge_loss       what a merge into 4 bits costs hats that were trained for it, and others
head_loss        what an output head in 8 or 4 bits costs
cache_loss       what keys and values in 8 or 4 bits cost
unseen_loss      what these three share: documents that the embedded base has not seen, and a paired difference on them
influence        predictions of influence, held against runs without documents: influence_runs; influence_page
real             a model that somebody else trained, hats on it over several seeds
lora             LoRA beside full fine-tuning, against the claims of three works: lora_plan, lora_runs, ...
reproduce        the write-up in one command
writeup_claims   its claims, computed
doctor           what this machine has, and doctor_page as text
systems          which systems are supported
"""
