"""The command demo: real brain slices, all of them and a quarter of their volumes."""
