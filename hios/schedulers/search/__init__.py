"""Local search over schedules; `hios.schedulers.auto` is the scheduler made of it.

`arrays` turns a problem into arrays, `kernel` is the compiled inner loop, `annealing` drives it
over one-stream schedules; `stage_search` improves the stages of devices with several streams, and
`stream_search` their streams without stages.
"""
