"""Side-by-side timings of training steps: script, table, machine, commit."""
