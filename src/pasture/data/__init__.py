"""Room 1: the instructions that systems are trained on and evaluated with."""
