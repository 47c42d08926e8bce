"""Engines that run one network, behind one small protocol, so that they can be compared.

Each file wraps one way to run a model: our executor, TVM's own virtual machine, ONNX Runtime.
`hios_tvm.comparison` runs them interleaved.
"""

from hios_tvm.engines.protocol import Arrays, Engine

__all__ = ["Arrays", "Engine"]
