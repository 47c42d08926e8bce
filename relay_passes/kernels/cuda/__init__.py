"""Schedule rules for CUDA, one operator family a file, and the legalisations they rely on."""

from relay_passes.kernels.cuda.rules import ScheduleKernels, legalize_map

__all__ = ["ScheduleKernels", "legalize_map"]
