"""Side-by-side timings: script, table, machine, commit."""
