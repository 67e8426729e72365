"""Programs as graphs of tensor operations: traced, checked against themselves, compiled."""
