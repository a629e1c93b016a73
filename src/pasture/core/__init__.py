"""The nouns, the doors and the ground that every room stands on; numpy and scipy at most, never torch."""
