"""Costs: the protocol that schedulers ask, and its implementations without learning."""

from hios.costs.protocol import Costs, Group, Stage

__all__ = ["Costs", "Group", "Stage"]
