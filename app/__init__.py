"""Spendscope: what the cloud costs, what drives it, and how far each figure can be trusted."""

__version__ = "0.1.0"
