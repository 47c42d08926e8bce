"""The CUDA backend: streams, events, peer copies and one captured graph around TVM's kernels.

A thin last layer: the plan decides, this room issues. All of CUDA is reached through one small
protocol (`driver.Driver`), which `cuda_driver` implements over cuda-core and cuda-bindings, and
which tests implement as a model of CUDA's documented state machine.
"""
