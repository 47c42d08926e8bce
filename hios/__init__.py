"""The scheduler itself: operator graphs, machines, costs, schedules and their timing.

Pure decisions: no clock, no device, no TVM. Everything above (`relay_passes`,
`graph_executor`, `cost_model`, `hios_tvm`) stands on this package.
"""

__version__ = "0.1.0"
