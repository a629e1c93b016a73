"""Campaigns: pairs that people label, from the first invitation to the last export; what is shown is in `page`."""
