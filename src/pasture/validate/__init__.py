"""The evidence that simulated annotators can stand in for people."""
