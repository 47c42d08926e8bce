"""Seeing a schedule: a Gantt picture, a trace for Perfetto or Chrome, and tables.

Everything here reads core types of `hios` alone and needs neither TVM nor a device.
"""
