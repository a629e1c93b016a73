"""The meadow: a miniature world with a known truth, in which the whole loop runs in minutes."""
