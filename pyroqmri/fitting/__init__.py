"""From measurements to a fit, and a fit to disk and back."""
