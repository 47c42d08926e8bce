"""Schedule rules for CUDA, one operator family a file, and the legalisations they rely on."""

from relay_passes.kernels.cuda.rules import RULE, ScheduleKernels, legalize_map

__all__ = ["RULE", "ScheduleKernels", "legalize_map"]
