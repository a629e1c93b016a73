"""Room 2: instructions in; completions and comparisons of them out."""
