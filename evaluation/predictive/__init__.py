"""What a model would have us see: samples, replications, missing values."""
