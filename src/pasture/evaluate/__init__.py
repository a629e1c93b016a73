"""From preferences to numbers with errors: win rates, length control, rankings, leaderboards."""
