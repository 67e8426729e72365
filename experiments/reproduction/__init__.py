"""What every reproduced figure and table is described by, run with and written as."""
