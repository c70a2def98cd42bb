"""Networks that map measurements to parameters: labels, training, estimates."""
