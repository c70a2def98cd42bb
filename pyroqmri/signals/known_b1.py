"""B1 where no map of it was measured: a parameter whose population is known beforehand."""

from pyroqmri.parameter import Parameter

POPULATION = (1.0, 0.1)  # mean and sd over a head at 3 T
FREE_B1 = Parameter("B1", "B_1", "1", 0.5, 1.5, "actual over nominal flip angle")
EXPECTED = (POPULATION[0], 0.01, POPULATION[1])
