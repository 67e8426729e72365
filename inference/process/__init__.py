"""What a process has one of: random states, switches, precision, devices, signals."""
