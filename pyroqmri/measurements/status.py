"""Status codes of voxels."""

STATUS: dict[int, str] = {
    0: "outside the mask",
    1: "fine",
    2: "NaN or Inf in the signal, or values clipped at the maximum of the image",
    3: "no signal",
    4: "negative values, set to zero",
    5: "did not converge",
    6: "a parameter at its bound",
    7: "the signal does not fit (posterior predictive p < 0.001): partial volume, motion or another tissue",
    8: "few measurements do not fit, and the others do: an outlier volume or a dropout",
    9: "this scan cannot determine a parameter: its value is that of the prior or of a bound",
    10: "a map that the signal needs has no value here",
    11: "what the signal leaves varies with direction (p < 0.001): a second fibre, or another tissue",
    12: "unlike the population that it is drawn towards (p < 0.001): another tissue, whose contrast is reduced here",
}
# for a legend, where there is no room for a sentence
BRIEF: dict[int, str] = {
    0: "outside", 1: "fine", 2: "not finite", 3: "no signal", 4: "negative", 5: "not converged", 6: "at bound",
    7: "misfit", 8: "outlier volume", 9: "undetermined", 10: "no input", 11: "varies with direction",
    12: "unlike population",
}  # fmt: skip

OUTSIDE, FINE, NOT_FINITE, NO_SIGNAL, NEGATIVE, NOT_CONVERGED, AT_BOUND, MISFIT, FEW_MISFIT = range(9)
UNINFORMED, NO_INPUT, DIRECTIONAL, UNLIKE = 9, 10, 11, 12
UNFITTED = (NOT_FINITE, NO_SIGNAL, NO_INPUT)  # voxels that were not tried and have no numbers
