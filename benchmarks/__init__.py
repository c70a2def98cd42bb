"""What is measured and compared; results are kept as JSON with how they were made."""
