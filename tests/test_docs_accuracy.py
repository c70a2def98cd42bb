"""The page of accuracies is what the results say."""

import itertools
import json

import pytest

from docs import accuracy


def rows(recipes=("least_squares", "hierarchical"), snrs=(10.0, 20.0), seeds=(0, 1)):
    found = []
    for r, snr, seed, p, t in itertools.product(recipes, snrs, seeds, "DK", ("all", "white matter", "grey matter")):
        row = {"protocol": "A288", "snr": snr, "tissues": "no csf", "given": False, "recipe": r, "seed": seed}
        row |= {"parameter": p, "tissue": t, "ratio": 1.1 + seed / 10 + (r == "least_squares"), "seconds": 3.0}
        row |= {"cover90": 0.9, "ks": 0.02} if r == "hierarchical" else {}
        found.append(row)
    return found


def test_the_page_holds_the_results():
    text = accuracy.PAGE.read_text()
    content, figures = accuracy.made(json.loads(accuracy.RESULTS.read_text())["rows"])
    assert accuracy.page(text, content) == text, "run: python -m docs.accuracy"
    assert [name for name in figures if not (accuracy.FIGURES / name).exists()] == []


def test_a_table_states_median_range_and_the_best_first():
    lines = accuracy.numbers(rows()).splitlines()
    assert len(lines) == 2 + 2 * 2
    assert lines[2].startswith("| 10 | `hierarchical` | 1.15 (1.10-1.20) |")
    assert "| 0.90, 0.020 | 0.90, 0.020 | 3 |" in lines[2]
    assert lines[3].startswith("| 10 | `least_squares` | 2.15 (2.10-2.20) |")
    assert lines[3].endswith("|  |  | 3 |")


@pytest.mark.parametrize("what", accuracy.MEASURES)
def test_figures_are_small_pngs(what):
    picture = accuracy.draw(rows(), what)
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 150_000


def test_an_estimator_that_was_told_of_water_is_another_one():
    told = [r | {"given": True} for r in rows(("hierarchical",))]
    assert "`hierarchical, water given`" in accuracy.numbers(told)


def test_a_page_without_its_markers_is_refused():
    with pytest.raises(ValueError, match="markers"):
        accuracy.page("nothing", "content")
