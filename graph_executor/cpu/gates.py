"""Gates: what one thread waits at until another opens it.

A gate starts closed. `open` lets one `wait` pass, which closes it again, so a plan can run any
number of times without resetting anything. There is one gate per `Wait` of a plan.

* `SpinGate` spins in native code with the interpreter lock released, for a third of a
  millisecond, and then sleeps. Passing it takes about 5 µs from one core to another on an idle
  machine, most of it for the interpreter lock. It must have its core to itself.
* `SleepGate` puts the thread to sleep at once: about 27 µs from one core to another, 6 µs on
  one core, and the core is free meanwhile.

Spinning for ever would be simpler, but on a machine that others use as well it costs whole time
slices: a thread that spun has used up its share when its turn to work comes.
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
_FUNCTIONS = ("lfind", "pthread_spin_init", "pthread_spin_trylock", "pthread_spin_unlock")

_SPINS = ctypes.c_size_t(50_000)
"""Attempts before a waiting thread goes to sleep: about 6 ns each."""


def spinning_is_available() -> bool:
    """Return whether the C library has what `SpinGate` needs (POSIX spin locks)."""
    return all(hasattr(_LIBC, name) for name in _FUNCTIONS)


if spinning_is_available():
    _lfind = _LIBC.lfind
    _lfind.restype = ctypes.c_void_p
    _lfind.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_size_t, ctypes.c_void_p]
    _trylock = _LIBC.pthread_spin_trylock
    _trylock.argtypes = [ctypes.c_void_p]
    _unlock = _LIBC.pthread_spin_unlock
    _unlock.argtypes = [ctypes.c_void_p]
    _TRYLOCK = ctypes.cast(_trylock, ctypes.c_void_p)
    _SPINS_AT = ctypes.addressof(_SPINS)


class SpinGate:
    """A gate that spins for a while, then sleeps (see the module).

    The gate is a POSIX spin lock: locked means closed. Unlocking from another thread than the
    one that locked is a plain atomic store in every C library there is, which is just what a
    gate needs. The bounded spinning is `lfind`: a linear search that calls its comparison,
    here `pthread_spin_trylock` on the key, until that returns zero.

    A thread about to sleep puts a token into `_asleep` and looks once more; the opener that
    takes the token away has to wake it. `list.pop` is atomic, so just one of them gets it.
    """

    __slots__ = ("_address", "_asleep", "_keep", "_wake")

    def __init__(self) -> None:
        # A cache line of its own: no false sharing between gates.
        self._keep = (ctypes.c_char * 192)()
        self._address = (ctypes.addressof(self._keep) + 127) & ~63
        _LIBC.pthread_spin_init(ctypes.c_void_p(self._address), 0)
        _trylock(self._address)
        self._asleep: list[None] = []
        self._wake = threading.Lock()
        self._wake.acquire()

    def open(self) -> None:
        """Let one wait pass."""
        _unlock(self._address)
        if self._asleep:
            try:
                self._asleep.pop()
            except IndexError:
                return
            self._wake.release()

    def wait(self) -> None:
        """Return when the gate was opened, and close it."""
        address = self._address
        if _lfind(address, address, _SPINS_AT, 0, _TRYLOCK):
            return
        self._asleep.append(None)
        if _trylock(address) == 0:
            try:
                self._asleep.pop()
            except IndexError:
                # The opener took the token: its wake-up is on the way and must be used up.
                self._wake.acquire()
            return
        self._wake.acquire()
        _trylock(address)

    def force_open(self) -> None:
        """Let a wait pass."""
        self.open()

    def reset(self) -> None:
        """Close it."""
        _trylock(self._address)


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
