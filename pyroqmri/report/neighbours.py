"""Where neighbouring voxels were used, for fits whose prior is a field."""

from markupsafe import Markup

from pyroqmri.report import words
from pyroqmri.report.atlas import Atlas
from pyroqmri.report.canvas import Scale
from pyroqmri.report.sections import Picture, percentiles


def neighbour_pictures(atlas: Atlas, names: list[str]) -> list[Picture]:
    """How much of each parameter neighbours have stated, and which voxels go their own way; none without a field."""
    results = atlas.results
    shown = [name for name in names if results.has(name, "neighbours")]
    pictures = [_share(atlas, name) for name in shown]
    return [*pictures, _alone(atlas)] if shown and results.has("", "alone") else pictures


def _share(atlas: Atlas, name: str) -> Picture:
    low, middle, high = (words.percent(x) for x in percentiles(atlas.values(name, "neighbours"), 5, 50, 95))
    block = atlas.block(atlas.images(name, "neighbours"), Scale("from neighbours", "1", 0.0, 1.0, "viridis"))
    text = (
        "<b>{}.</b> Share of the information on it that comes from neighbours: 0 is a voxel mapped as it would be by "
        "itself, 0.75 one whose sd they have halved. Median {}, 90 % of voxels between {} and {}."
    )
    named = words.named(name, atlas.results.parameter(name).symbol)
    words_ = Markup(text).format(named, middle, low, high)
    return Picture(atlas.panel([[block]], 5.0), words_, f"map of the share of {name} that comes from neighbours")


def _alone(atlas: Atlas) -> Picture:
    values = atlas.values("", "alone")
    block = atlas.block(atlas.images("", "alone"), Scale("probability", "1", 0.0, 1.0, "magma"))
    text = (
        "<b>Voxels unlike their neighbours.</b> Probability that a voxel shares nothing with them and is mapped "
        "by itself; above one half in {} of voxels. Look here for small findings."
    )
    share = words.percent(float((values > 0.5).mean()))
    return Picture(atlas.panel([[block]], 5.0), Markup(text).format(share), "map of voxels unlike their neighbours")
