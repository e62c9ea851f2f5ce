"""The operations of Llama between its products, and the loss.

cpu                   in C, or in pieces that fit the cache
cuda                  in Triton
linear_cross_entropy  output head and loss in chunks of rows
"""
