"""Commands that measure; each prints what it measured, with units, spread and ratios."""
