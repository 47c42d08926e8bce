"""Algorithms that decide where, in which stream and in which order operators run.

`schedule` runs one by name and checks what it returns. Each algorithm is one file and one
function; importing this package registers those that belong to it.
"""

from hios.schedulers.auto import auto
from hios.schedulers.autograph import autograph
from hios.schedulers.exact import exact
from hios.schedulers.graphi import graphi
from hios.schedulers.heft import heft
from hios.schedulers.hios_lp import hios_lp
from hios.schedulers.hios_mr import hios_mr
from hios.schedulers.ios import ios
from hios.schedulers.lios import lios
from hios.schedulers.longest_path import hios_lp_inter
from hios.schedulers.mapping_recording import hios_mr_inter
from hios.schedulers.multi_tenant import multi_tenant
from hios.schedulers.nimble import nimble
from hios.schedulers.opara import opara
from hios.schedulers.registry import (
    Scheduler,
    get_scheduler,
    list_schedulers,
    register,
)
from hios.schedulers.run import schedule
from hios.schedulers.sequential import sequential
from hios.schedulers.wavefront import wavefront

__all__ = [
    "Scheduler",
    "auto",
    "autograph",
    "exact",
    "get_scheduler",
    "graphi",
    "heft",
    "hios_lp",
    "hios_lp_inter",
    "hios_mr",
    "hios_mr_inter",
    "ios",
    "lios",
    "list_schedulers",
    "multi_tenant",
    "nimble",
    "opara",
    "register",
    "schedule",
    "sequential",
    "wavefront",
]
