"""Ways to write work, on top of runs."""
