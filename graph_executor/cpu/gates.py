"""Gates: what one thread waits at until another opens it.

A gate starts closed. `open` lets one `wait` pass, which closes it again, so a plan can run any
number of times without resetting anything. There is one gate per `Wait` of a plan.

* `SpinGate` spins in native code with the interpreter lock released: about 5 µs from one core
  to another (measured; most of it is the interpreter lock, not the spinning). It must have its
  core to itself.
* `SleepGate` puts the thread to sleep: about 27 µs from one core to another, 6 µs on one core,
  and the core is free meanwhile.
"""

import ctypes
import threading
from typing import Protocol

__all__ = ["Gate", "SleepGate", "SpinGate", "spinning_is_available"]


class Gate(Protocol):
    """Closed until opened, once per pass."""

    def open(self) -> None:
        """Let one wait pass."""
        ...

    def wait(self) -> None:
        """Return when the gate was opened, and close it."""
        ...

    def force_open(self) -> None:
        """Let a wait pass whatever happens; used when a run is given up."""
        ...

    def reset(self) -> None:
        """Close it, open or not, while nobody waits."""
        ...


_LIBC = ctypes.CDLL(None)


def spinning_is_available() -> bool:
    """Return whether the C library has POSIX spin locks."""
    return hasattr(_LIBC, "pthread_spin_lock")


if spinning_is_available():
    for _name in ("pthread_spin_lock", "pthread_spin_trylock", "pthread_spin_unlock"):
        getattr(_LIBC, _name).argtypes = [ctypes.c_void_p]


class SpinGate:
    """A gate that burns its core while it waits, and passes within microseconds.

    Unlocking from another thread than the one that locked is a plain atomic store in every C
    library there is, which is just what a gate needs.
    """

    __slots__ = ("_address", "_keep", "_lock", "_try", "_unlock")

    def __init__(self) -> None:
        # A cache line of its own on both sides: no false sharing between gates.
        self._keep = (ctypes.c_char * 192)()
        self._address = (ctypes.addressof(self._keep) + 127) & ~63
        self._lock = _LIBC.pthread_spin_lock
        self._try = _LIBC.pthread_spin_trylock
        self._unlock = _LIBC.pthread_spin_unlock
        _LIBC.pthread_spin_init(ctypes.c_void_p(self._address), 0)
        self._lock(self._address)

    def open(self) -> None:
        """Let one wait pass."""
        self._unlock(self._address)

    def wait(self) -> None:
        """Spin until the gate was opened, and close it."""
        self._lock(self._address)

    def force_open(self) -> None:
        """Let a wait pass."""
        self._unlock(self._address)

    def reset(self) -> None:
        """Close it."""
        self._try(self._address)


class SleepGate:
    """A gate at which the thread sleeps."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let one wait pass."""
        self._lock.release()

    def wait(self) -> None:
        """Sleep until the gate was opened, and close it."""
        self._lock.acquire()

    def force_open(self) -> None:
        """Let a wait pass."""
        if self._lock.locked():
            self._lock.release()

    def reset(self) -> None:
        """Close it."""
        self._lock.acquire(blocking=False)
