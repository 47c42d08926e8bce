"""Every error that a user can cause, as one tree named by meaning.

The message of each is one line: what is wrong, the value got, and what is allowed or the
next step. The command line prints it and exits with code 2. Each child also inherits the
builtin that a Python programmer would expect, so ``except ValueError`` keeps working.
"""

__all__ = [
    "ArtifactMismatch",
    "CostModelMismatch",
    "CyclicGraph",
    "DeviceUnavailable",
    "ExecutionError",
    "HiosError",
    "HiosWarning",
    "InfeasibleSchedule",
    "InputMismatch",
    "InvalidCosts",
    "InvalidGraph",
    "InvalidMachine",
    "InvalidOption",
    "InvalidPlan",
    "InvalidRecord",
    "MissingDependency",
    "MissingFile",
    "StorageError",
    "UnknownDevice",
    "UnknownScheduler",
    "UnsupportedModel",
]


class HiosError(Exception):
    """Root of all errors raised on purpose by hios-tvm."""


class HiosWarning(UserWarning):
    """Root of all warnings given on purpose: the work was done, but not as one may expect."""


class InvalidGraph(HiosError, ValueError):
    """An operator graph breaks one of its own rules (dangling edge, duplicate id, ...)."""


class CyclicGraph(InvalidGraph):
    """Operators, or the stages of a schedule, depend on each other in a circle."""


class InvalidCosts(HiosError, ValueError):
    """A time is NaN, infinite, negative or missing."""


class InvalidRecord(HiosError, ValueError):
    """A measured group is damaged, contradicts itself, or is of another schema."""


class InvalidMachine(HiosError, ValueError):
    """A machine description is inconsistent or cannot be read."""


class UnknownDevice(HiosError, LookupError):
    """A device name or number that this machine does not have."""


class UnknownScheduler(HiosError, LookupError):
    """No scheduler is registered under that name."""


class InvalidOption(HiosError, ValueError):
    """An option has a value outside of what it allows."""


class InfeasibleSchedule(HiosError, ValueError):
    """A schedule misses an operator, breaks a dependency, or does not fit in memory."""


class InvalidPlan(HiosError, ValueError):
    """A plan could read a tensor before it is written, or lets two accesses race."""


class UnsupportedModel(HiosError, ValueError):
    """A model file is damaged, or holds something that the importer cannot lower."""


class InputMismatch(HiosError, ValueError):
    """A run-time input has an unknown name, or the wrong shape or dtype."""


class ArtifactMismatch(HiosError, ValueError):
    """A saved artifact is damaged, from another format version, or for another machine."""


class CostModelMismatch(HiosError, ValueError):
    """A learned cost model is damaged, or was trained for another target, device or schema."""


class MissingFile(HiosError, FileNotFoundError):
    """A file that was named does not exist or cannot be read."""


class StorageError(HiosError, OSError):
    """Something could not be written; nothing half-written was left behind."""


class MissingDependency(HiosError, ImportError):
    """An optional package is not installed."""


class DeviceUnavailable(HiosError, RuntimeError):
    """A device exists by name but cannot be used now."""


class ExecutionError(HiosError, RuntimeError):
    """A kernel or a copy failed while a plan was running, or the executor is closed."""
