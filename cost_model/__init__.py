"""Measured and learned costs of concurrent operators, on top of the executor."""
