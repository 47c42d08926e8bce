"""Algorithms that decide where, in which stream and in which order operators run.

`schedule` runs one by name and checks what it returns. Each algorithm is one file and one
function; importing this package registers those that belong to it.
"""

from hios.schedulers.heft import heft
from hios.schedulers.hios_lp import hios_lp
from hios.schedulers.longest_path import hios_lp_inter
from hios.schedulers.registry import (
    Scheduler,
    get_scheduler,
    list_schedulers,
    register,
)
from hios.schedulers.run import schedule
from hios.schedulers.sequential import sequential

__all__ = [
    "Scheduler",
    "get_scheduler",
    "heft",
    "hios_lp",
    "hios_lp_inter",
    "list_schedulers",
    "register",
    "schedule",
    "sequential",
]
