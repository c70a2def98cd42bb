"""A map of a parameter that the scan does not tell shows its known population, which a fit's notes state."""

import pytest

from pyroqmri.protocol_checks.judge import known_nuisances


@pytest.mark.parametrize(
    ("signal", "kind", "held", "named"),
    [
        ("mwf", "hierarchical", (), "T2_my is known beforehand (18, sd 4)"),
        ("t1_vfa_free_b1", "hierarchical", (), "B1 is known beforehand (1, sd 0.1)"),
        ("mwf", "hierarchical", ("T2_my",), None),  # fixed or tied
        ("mwf", "uniform", (), None),  # takes no population
        ("t1_vfa", "hierarchical", (), None),
    ],
)
def test_a_known_population_is_stated(signal, kind, held, named):
    found = known_nuisances(signal, {"prior": {"kind": kind}}, held)
    assert len(found) == (named is not None)
    assert named is None or named in found[0]
