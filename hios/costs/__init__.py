"""Costs: the protocol that schedulers ask, and its implementations without learning."""

from hios.costs.analytic import AnalyticCosts
from hios.costs.protocol import BoundedCosts, Costs, Group, Stage
from hios.costs.table import TableCosts

__all__ = ["AnalyticCosts", "BoundedCosts", "Costs", "Group", "Stage", "TableCosts"]
