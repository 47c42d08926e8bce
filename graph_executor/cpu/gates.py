"""Gates: what one thread waits at until another opens it.

A gate starts closed. `open` lets one `wait` pass, which closes it again, so a plan can run any
number of times without resetting anything. There is one gate per `Wait` of a plan.

* `SpinGate` spins in native code with the interpreter lock released, for a quarter of a
  millisecond, and then sleeps. Passing it takes 1 to 2 µs from one core to another. It must
  have its core to itself.
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
_FUNCTIONS = ("lfind", "strverscmp")

_SPINS = ctypes.c_size_t(120_000)
"""Looks at the flag before a waiting thread goes to sleep: about 2 ns each."""

_CLOSED, _OPEN = b"co"

# How long both strings go on after the flag; see SpinGate. 1 µs of comparing.
_TAIL = b"x" * 640


def spinning_is_available() -> bool:
    """Return whether the C library has what `SpinGate` needs."""
    return all(hasattr(_LIBC, name) for name in _FUNCTIONS)


if spinning_is_available():
    # A prototype converts the arguments twice as fast as `argtypes` does.
    _lfind = ctypes.CFUNCTYPE(
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
    )(("lfind", _LIBC))
    _COMPARE = ctypes.cast(_LIBC.strverscmp, ctypes.c_void_p)
    _SPINS_AT = ctypes.addressof(_SPINS)
    _OPEN_TEXT = ctypes.create_string_buffer(bytes([_OPEN]) + _TAIL)
    _OPEN_AT = ctypes.addressof(_OPEN_TEXT)


class SpinGate:
    """A gate that spins for a while, then sleeps (see the module).

    The gate is a string whose first byte is the flag. The bounded spinning is one call of
    `lfind`: a linear search that calls its comparison, here `strverscmp`, until that says
    'equal' to the string of an open gate. A closed one differs in the first byte, which takes
    nanoseconds to see. Once the flag is set, the equal tails are compared to their end, and that
    is meant: the opener still holds the interpreter lock for a fraction of a microsecond, until
    its next kernel starts. A waiter that came out at once would find the lock taken, sleep, and
    be woken 20 µs later (measured; with the tail a pass takes 1 µs).

    The flag is written and the waiter goes on under the interpreter lock, which orders the data
    behind the gate on every kind of CPU.

    A thread about to sleep puts a token into `_asleep` and looks once more; the opener that
    takes the token away has to wake it. `list.pop` is atomic, so just one of them gets it.
    """

    __slots__ = ("_address", "_asleep", "_flag", "_text", "_wake")

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(bytes([_CLOSED]) + _TAIL)
        self._address = ctypes.addressof(self._text)
        self._flag = memoryview(self._text).cast("B")
        self._asleep: list[None] = []
        self._wake = threading.Lock()
        self._wake.acquire()

    def open(self) -> None:
        """Let one wait pass."""
        self._flag[0] = _OPEN
        if self._asleep:
            try:
                self._asleep.pop()
            except IndexError:
                return
            self._wake.release()

    def wait(self) -> None:
        """Return when the gate was opened, and close it."""
        if not _lfind(self._address, _OPEN_AT, _SPINS_AT, 0, _COMPARE):
            self._sleep()
        self._flag[0] = _CLOSED

    def _sleep(self) -> None:
        self._asleep.append(None)
        if self._flag[0] == _OPEN:
            try:
                self._asleep.pop()
            except IndexError:
                # The opener took the token: its wake-up is on the way and must be used up.
                pass
            else:
                return
        self._wake.acquire()

    def force_open(self) -> None:
        """Let a wait pass."""
        self.open()

    def reset(self) -> None:
        """Close it."""
        self._flag[0] = _CLOSED


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
        try:
            self._lock.release()
        except RuntimeError:
            return  # open, perhaps since a moment ago: several threads may give a run up at once

    def reset(self) -> None:
        """Close it."""
        self._lock.acquire(blocking=False)
