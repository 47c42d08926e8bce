"""From CUDA source to machine code ahead of time, on a machine that needs no GPU.

`target` reads what a user may write, `cubin` compiles, `packing` puts the machine code into the
exported library in the place of the source, `resources` reads what each kernel takes, and
`occupancy` what that means on a multiprocessor.
"""
