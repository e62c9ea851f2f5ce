"""Influence of each training document on a test document, from gradients of single documents over kept checkpoints.

gradients  gradients of single documents, and their products
run        a folder of a run: its data, its steps, the hat and the moments of each checkpoint
effects    products and steps -> the predicted change of every test loss
trace      all of it: `lowrank inspect data`
"""
