"""The discrete-event simulator: what a schedule means in time.

`hios.ir.schedule` states the rules; `layout` takes a schedule apart into tasks, dependencies
and queues, `sharing` says how concurrent streams slow each other down, `engine` lets time pass.
"""

from hios.simulator.simulate import complete_links, makespan, simulate

__all__ = ["complete_links", "makespan", "simulate"]
