"""A process that still works is waited for, one that sleeps is not."""

import threading
import time

from hios_tvm.settling import settle


def test_waits_until_a_busy_thread_is_done() -> None:
    end = time.perf_counter() + 0.05

    def spin() -> None:
        while time.perf_counter() < end:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    used_us = settle(limit_s=30)
    assert time.perf_counter() >= end
    assert used_us > 1e3
    thread.join()


def test_gives_up_at_its_limit() -> None:
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    started = time.perf_counter()
    settle(limit_s=0.05)
    assert time.perf_counter() - started < 10  # and not for ever
    stop.set()
    thread.join()
