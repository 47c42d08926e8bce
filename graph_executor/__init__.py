"""Performing a schedule: plan, memory, backends, executor, measurement, artifact.

Everything that decides here (plan, arena, race detector) is pure; only the backends touch
devices, and only `graph_executor.tvm_runtime` touches TVM.
"""
