"""What tests of pages share."""

import pytest

from pyroqmri.report import canvas as figures


@pytest.fixture
def quick(monkeypatch):
    """Pages with empty pictures, which are most of the time that a page takes."""
    dot = figures.png(figures.new_figure(0.1, 0.1), dpi=20)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, stream, **_: stream.write(dot))
    return monkeypatch
