"""Local search over schedules; `hios.schedulers.auto` is the scheduler made of it.

`portfolio` runs the rivals and judges candidates. `arrays` turns a problem into arrays, `kernel`
is the compiled inner loop, and `annealing` drives it over one-stream schedules. `stage_search`
improves the stages of devices with several streams, `stream_search` their streams without stages.
"""
