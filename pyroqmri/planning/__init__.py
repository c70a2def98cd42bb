"""Which measurements of a list are worth their time, under the population that a fit learned."""
