"""New hats out of hats: fewer ranks, several as one, out of two checkpoints. `docs/hat-algebra.md` has the equations.

factored    delta W by its singular values, from its two small matrices
sparsify    what TIES, DARE and pruning by size leave of several matrices
combine     several hats of a linear as one
mix         folders of hats as one folder, and hats of a model as one more
reduce      the best hat of a lower rank
extract     a hat out of a base and what somebody made of it
worked      what such a hat is away from what was asked for, linear by linear
in_memory   a hat added to the weights of a model in memory, and taken off to the byte
"""
