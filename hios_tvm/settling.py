"""Wait until this process has gone quiet, so that one engine's idle threads harm no other.

Thread pools keep their workers spinning for a while after a run: TVM's, OpenMP's, ONNX Runtime's
unless it is told not to. On few cores they would slow whoever is timed next. The process's own
clock of used time tells when they have gone to sleep, whoever's they are.
"""

import time

__all__ = ["settle"]

_LOOK_S = 0.002
_BUSY_SHARE = 0.2


def settle(limit_s: float = 0.3) -> float:
    """Sleep until no thread of this process works, or for `limit_s`.

    Returns
    -------
    float
        Microseconds of processor time that were used meanwhile: what others would have lost.
    """
    started, used = time.perf_counter(), time.process_time()
    while True:
        wall, work = time.perf_counter(), time.process_time()
        time.sleep(_LOOK_S)
        passed = time.perf_counter() - wall
        if time.process_time() - work < _BUSY_SHARE * passed:
            break
        if time.perf_counter() - started > limit_s:
            break
    return max(0.0, time.process_time() - used) * 1e6
