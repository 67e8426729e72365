"""Tables and figures, each by one command."""
