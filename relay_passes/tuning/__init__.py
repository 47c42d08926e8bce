"""Tuned kernels: TVM's MetaSchedule over the distinct kernels of a network, kept per target."""

from relay_passes.tuning.choose import with_tuned_kernels
from relay_passes.tuning.database import TuningDatabase, TuningNote
from relay_passes.tuning.search import Tracker, TuneOptions, TuneReport, tune
from relay_passes.tuning.tasks import TuningTask, tuning_tasks

__all__ = [
    "Tracker",
    "TuneOptions",
    "TuneReport",
    "TuningDatabase",
    "TuningNote",
    "TuningTask",
    "tune",
    "tuning_tasks",
    "with_tuned_kernels",
]
