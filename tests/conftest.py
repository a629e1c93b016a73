"""Shapes are checked while tests run: a formula given or returning a wrong shape fails where it happens."""

import os

from jaxtyping import install_import_hook

# Set before torch is imported: with one thread sums have one order, so equal means equal to the bit.
os.environ["OMP_NUM_THREADS"] = "1"

_hook = install_import_hook(["pasture.formulas", "pasture.models"], "beartype.beartype")
_hook.__enter__()
