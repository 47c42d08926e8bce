"""Schedule rules for kernels, one operator family a file, and the legalisations they rely on."""

from relay_passes.kernels.rules import ScheduleKernels, legalize_map, vector_unit

__all__ = ["ScheduleKernels", "legalize_map", "vector_unit"]
