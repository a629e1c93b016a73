"""Pasture: a simulator for methods that learn from human feedback."""

__version__ = "0.1.0"
