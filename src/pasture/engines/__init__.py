"""Text engines: one class each, imported when it is asked for, so that no service's client slows or blocks the rest."""
