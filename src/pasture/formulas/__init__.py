"""The formulas of the methods: pure torch functions with their shapes and sources, checked against NumPy."""
