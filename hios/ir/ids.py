"""Distinct integer types for what is counted, so that one is never taken for another."""

from typing import NewType

__all__ = ["DeviceId", "OpId", "StageId", "StreamId", "TensorId"]

OpId = NewType("OpId", int)
TensorId = NewType("TensorId", int)
DeviceId = NewType("DeviceId", int)
StreamId = NewType("StreamId", int)
StageId = NewType("StageId", int)
