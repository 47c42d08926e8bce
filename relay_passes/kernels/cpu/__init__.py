"""Schedule rules for CPUs, one operator family a file, and the legalisations they rely on."""

from relay_passes.kernels.cpu.rules import ScheduleKernels, legalize_map, vector_unit

__all__ = ["ScheduleKernels", "legalize_map", "vector_unit"]
