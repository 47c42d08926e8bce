"""What is taken when nobody says otherwise; light to import, for help texts."""

__all__ = ["DEFAULT_SCHEDULER"]

DEFAULT_SCHEDULER = "auto"
"""Name of the scheduler that decides."""
