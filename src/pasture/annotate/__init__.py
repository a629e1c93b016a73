"""Comparisons in, preferences out: judges, pools, simulated raters and label noise; never torch."""
