"""The maps of one fit on the slices that a report shows."""

import numpy as np
from numpy.typing import NDArray

from pyroqmri.parameter import Parameter
from pyroqmri.report import words
from pyroqmri.report.figures import WIDTH, Block, Scale, map_panel, png, robust_scale
from pyroqmri.report.folder_of_maps import FolderOfMaps

_ANGLE_UNIT = "rad"
_PANELS = 6


class Atlas:
    """The maps of one fit on the slices that the report shows."""

    def __init__(self, results: FolderOfMaps, n_slices: int = 2) -> None:
        self.results = results
        self.view = results.view(n_slices)
        self.mask = results.mask
        self._outside = [~image for image in self.view.images(self.mask)]
        self.subtitles = [f"slice {i}" for i in self.view.slices]

    def values(self, name: str, stat: str) -> NDArray:
        """The map inside the mask ``(N,)``."""
        return self.results.volume(name, stat)[self.mask]

    def images(self, name: str, stat: str) -> list[NDArray]:
        """The map's slices."""
        return self.view.images(self.results.volume(name, stat))

    def block(self, slices: list[NDArray], scale: Scale | None, title: str = "") -> Block:
        """A block of slices without what surrounds the mask."""
        images, missing = [], []
        for image, outside in zip(slices, self._outside, strict=True):
            image = np.asarray(image, float).copy()
            missing.append(~outside & ~np.isfinite(image.sum(-1) if image.ndim == 3 else image))
            image[outside] = np.nan
            images.append(image)
        return Block(images, scale, title, self.subtitles, missing=missing)

    def scale(self, parameter: Parameter, stat: str) -> Scale:
        """Robust limits of a parameter's map."""
        symbol = words.math(parameter.symbol)
        values = self.values(parameter.name, stat)
        if stat == "sd":
            return robust_scale(values, f"sd of {symbol}", parameter.unit, cmap="inferno", floor=0.0)
        if is_cyclic(parameter):
            return Scale(symbol, parameter.unit, parameter.lower, parameter.upper, "twilight")
        return robust_scale(values, symbol, parameter.unit, bounds=(parameter.lower, parameter.upper))

    def panel(self, rows: list[list[Block]], width: float = WIDTH) -> bytes:
        """Rows of blocks as PNG."""
        return png(map_panel(rows, aspect=self.view.aspect, letters=self.view.letters, width=width))

    def strip(
        self, maps: list[list[NDArray]], scale: Scale, titles: list[str], notes: list[str] | None = None
    ) -> bytes:
        """Slices of many maps on one scale with one bar, six panels a row, a note under the first slice of each."""
        n = len(self.view.slices)
        per_row = max(1, _PANELS // n)
        rows = []
        for i in range(0, len(maps), per_row):
            chosen = range(i, min(i + per_row, len(maps)))
            blocks = [self.block(maps[k], scale) for k in chosen]
            row = Block(
                [image for block in blocks for image in block.images],
                scale,
                subtitles=[f"{titles[k]}, {slice_}" for k in chosen for slice_ in self.subtitles],
                notes=() if notes is None else [notes[k] if s == 0 else "" for k in chosen for s in range(n)],
                missing=[image for block in blocks for image in block.missing],
            )
            rows.append([row])
        width = min(WIDTH, 1.7 * len(rows[0][0].images) + 1.0)
        return self.panel(rows, width)


def is_cyclic(parameter: Parameter) -> bool:
    """Whether the two ends of a parameter's range are the same thing."""
    return parameter.unit == _ANGLE_UNIT and abs(parameter.upper - parameter.lower - 2 * np.pi) < 1e-3


def is_angle(parameter: Parameter) -> bool:
    """Whether a parameter is an angle of a direction, whose maps belong beside the direction's."""
    return parameter.unit == _ANGLE_UNIT
