"""Schedule rules for kernels: one folder a kind of target, one operator family a file.

What the targets share stands here: finding and preparing the blocks of a PrimFunc (`blocks`).
"""
