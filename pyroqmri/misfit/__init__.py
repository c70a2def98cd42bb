"""What is left of the measurements once a signal is fitted: whether it is noise, and if not, what it looks like."""
