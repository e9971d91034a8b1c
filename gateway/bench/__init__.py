"""Benchmarks, one module each; ``kiki bench NAME --json`` prints a ``Report``."""
