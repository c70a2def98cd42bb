"""What is judged before a fit: whether a protocol and the data suit the signal."""
