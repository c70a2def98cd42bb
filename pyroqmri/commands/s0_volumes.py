"""Volumes of one setting against one another: other scalings, echo times, derived maps, displaced or empty volumes."""

import numpy as np

from pyroqmri.commands.left_out import option
from pyroqmri.commands.scan_images import (
    Images,
    base_groups,
    bright_images,
    image_noise,
    matched,
    settings_of,
    without_encoding,
)
from pyroqmri.io import Scan
from pyroqmri.measurements.likeness import LEVEL, UNLIKE, Likeness, displacement, likeness

MOST = 60  # images of one setting, evenly spread
DERIVED = 0.5  # correlation with the others below which an image is another quantity
SUSPECT = 2.5  # times the noise: differences that may be a displacement
SMALL_MOVE = 1.25  # voxels, of the tenth that is displaced most; below it nothing is said
TISSUE = 0.3, 3.5  # um2/ms, decays from S0
CLEARLY = 0.3  # of voxels
LOST_BELOW, LOST_SHARE = 0.4, 0.03  # of the others' signal; of voxels, while most are as they should be
FAR_LEVEL = 20.0  # times brighter or darker: other units
TOP_NOTES = 3


def volume_warnings(scan: Scan) -> list[str]:
    """What volumes of one setting say of one another, a sentence a fault, with the cause and what to do."""
    with np.errstate(all="ignore"):
        images = bright_images(scan)
        if images is None:
            return []
        empty = _empty(images)
        said = [_say_empty(images, m, what) for m, what in list(empty.items())[:TOP_NOTES]]
        found = []
        for group in base_groups(scan):
            s0 = [m for m in group if m not in empty]
            found += _against(images, s0[:: max(1, len(s0) // MOST)]) if len(s0) > 1 else []
        return [*said, *(found if found else _repeats(images, empty))][: 2 * TOP_NOTES]


def _empty(images: Images) -> dict[int, str]:
    """Volumes without a measurement, by their place in the scan, and what they are instead."""
    zero = (images.y == 0).mean(0)
    same = (images.y == np.median(images.y, 0)).mean(0)
    words = {m: "zero or not finite" for m in np.flatnonzero(zero > 0.9).tolist()}
    return words | {m: "one value" for m in np.flatnonzero((same > 0.9) & (zero <= 0.9)).tolist()}


def _say_empty(images: Images, m: int, what: str) -> str:
    value = float(np.median(images.y[:, m]))
    mask = f" ({value:g}): a mask?" if what == "one value" else ":"
    number = images.scan.numbers[[m]]
    return f"{images.are([m])} {what} throughout the tissue{mask} no measurement; leave it out with {option(number)}"


def _against(images: Images, volumes: list[int]) -> list[str]:
    """Images of one setting in groups of those that are alike; a sentence for each group but the main one."""
    noise = image_noise(images, volumes)
    groups: list[list[int]] = []
    for m in volumes:
        # against the last of each group: a slow drift is no step
        fits = [g for g in groups if _alike(likeness(images.y[:, g[-1]], images.y[:, m]), noise)]
        if fits:
            fits[0].append(m)
        else:
            groups.append([m])
    if len(groups) == 1:
        groups = _warped(images, volumes, noise)
    if len(groups) == 1:
        return _drift(images, volumes)
    main = _main(images, groups)
    others = [g for g in groups if g is not main]
    return [_cause(images, main, g, volumes, noise) for g in others[:TOP_NOTES]]


def _warped(images: Images, volumes: list[int], noise: float) -> list[list[int]]:
    """Images in two groups where some are displaced against the first in part of the tissue, as phase encodings do."""
    apart = [likeness(images.y[:, volumes[0]], images.y[:, m]).rms for m in volumes]
    far = volumes[int(np.argmax(apart))]
    if not max(apart) > SUSPECT * noise:
        return [volumes]
    moved = displacement(images.grid(volumes[:1]), images.grid([far]), images.scan.mask)
    if moved is None or moved[1] < SMALL_MOVE:
        return [volumes]
    near = [rms < likeness(images.y[:, far], images.y[:, m]).rms for m, rms in zip(volumes, apart, strict=True)]
    return [[m for m, first in zip(volumes, near, strict=True) if first == which] for which in (True, False)]


def _alike(found: Likeness, noise: float) -> bool:
    return found.same_level and not found.unlike(noise)


def _main(images: Images, groups: list[list[int]]) -> list[int]:
    """The largest group; among equals the first, unless another is much the better S0 of the encoded images."""
    most = max(map(len, groups))
    equal = [g for g in groups if len(g) == most]
    shares = [_plausible(images, g) for g in equal]
    return equal[int(np.argmax(shares))] if max(shares) > shares[0] + CLEARLY else equal[0]


def _plausible(images: Images, group: list[int]) -> float:
    """Share of voxels in which the decay from the group's images to the encoded ones is one of tissue."""
    bval = images.scan.acquisition.bval
    if bval is None:
        return 1.0
    b = bval.numpy()
    lowest = b[b > 0.3].min(initial=np.inf)
    encoded = np.flatnonzero((b > 0.3) & (b < lowest + 0.1))
    if not len(encoded):
        return 1.0
    ratio = images.mean(group) / np.median(images.y[:, encoded], 1)
    rate = np.log(np.maximum(ratio, 1e-9)) / b[encoded].mean()
    return float(((rate > TISSUE[0]) & (rate < TISSUE[1])).mean())


def _drift(images: Images, volumes: list[int]) -> list[str]:
    first, last = images.y[:, volumes[0]], images.y[:, volumes[-1]]
    change = likeness(first, last)
    if change.same_level or len(volumes) < 3:
        return []
    return [
        f"the b0 volumes go from 1 to {change.scale:.2f} times the brightness of the first over the scan "
        f"({images.names(volumes)}): signal drift? correct it before the fit"
    ]


def _cause(images: Images, main: list[int], group: list[int], volumes: list[int], noise: float) -> str:
    """What sets a group of images without encoding apart from the main one."""
    a, b = images.mean(main), images.mean(group)
    found = likeness(a, b)
    unlike = found.unlike(noise)
    run, step = _run(images, group, volumes)
    suspect = unlike or found.rms > SUSPECT * noise
    moved = displacement(images.grid(main), images.grid(group), images.scan.mask) if suspect else None
    if moved is not None:
        return _displaced(images, group, main, run, *moved)
    which = "S0 volumes" if images.scan.acquisition.bval is None else "b0 volumes"
    who, others = images.are(group), f"the other {which} ({images.names(main)})"
    leave = f"leave {'it' if len(group) == 1 else 'them'} out with {option(images.scan.numbers[group])}"
    lost = float((b < LOST_BELOW * max(found.scale, 1e-9) * a).mean())
    if found.same_level and lost > LOST_SHARE and not found.scatter > UNLIKE[0] * noise:
        return f"{who} without signal in {lost:.0%} of the voxels where {others} have it: dropout? {leave}"
    if len(run) == len(group) and _like_encoded(images, b, found):
        by = f"{found.scale:.2f} times as bright as {others}, as encoded volumes are"
        return f"{who} {by}: a trace image, or a wrong b-value? {leave}"
    if (unlike and found.correlation < DERIVED) or not 1 / FAR_LEVEL < found.scale < FAR_LEVEL:
        level = f"its values are about {np.median(b):.4g} where theirs are {np.median(a):.4g}"
        return f"{who} unlike {others}, correlation {found.correlation:.2f}, and {level}: a derived map? {leave}"
    if len(run) > len(group) and not found.same_level and (step is None or not 1 / LEVEL < step < LEVEL):
        return _scaled(images, run, found, unlike)
    if found.same_level:
        by = f"{found.rms:.0%} from voxel to voxel where noise makes {noise:.0%}"
        cause = "movement, another echo or repetition time, or another reconstruction"
        return f"{who} unlike {others} by {by}: {cause}? align the volumes first, or {leave}"
    spread = f" ({found.low:.2f} to {found.high:.2f})" if unlike else ""
    first = "not yet in the steady state, or " if group == [0] and found.scale > 1 else ""
    cause = (
        "a derived map, or another echo or repetition time" if unlike else "another scaling, echo or repetition time"
    )
    return f"{who} {found.scale:.2f}{spread} times as bright as {others}: {first}{cause}? {leave}"


def _scaled(images: Images, run: list[int], found: Likeness, unlike: bool) -> str:
    others = [m for m in range(images.y.shape[1]) if m not in set(run)]
    by = f"{found.scale:.2f} times as bright as {images.names(others)}"
    if unlike:
        return (
            f"{images.are(run)} {by}, by {found.low:.2f} to {found.high:.2f} from voxel to voxel: another echo or "
            "repetition time? fit the runs apart, or with a signal that has it"
        )
    return (
        f"{images.are(run)} {by}: two scalings, or another echo or repetition time; scale them to one S0 level "
        "before joining, or fit the runs apart"
    )


def _displaced(images: Images, group: list[int], main: list[int], run: list[int], axis: int, size: float) -> str:
    by = f"shifted along axis {axis} by about {size:.1f} voxels"
    if len(group) > 1 or len(run) > len(group):
        return (
            f"two groups of S0 volumes are {by} against each other ({images.names(main)}; {images.names(group)}): "
            "opposite phase encodings, or movement? correct with topup or align the volumes first"
        )
    return (
        f"{images.are(group)} {by} against {images.names(main)}: movement, or an opposite phase encoding? align the "
        f"volumes or correct with topup first, or leave it out with {option(images.scan.numbers[group])}"
    )


def _run(images: Images, group: list[int], volumes: list[int]) -> tuple[list[int], float | None]:
    """The stretch of the scan that goes with a group of its S0 volumes, and its encoded images' level over the rest's.

    Empty where the group's volumes do not follow one another; None where no b-value is in both.
    """
    place = [volumes.index(m) for m in group]
    if place[-1] - place[0] != len(place) - 1:
        return [], None
    n = images.y.shape[1]
    first = 0 if place[0] == 0 else group[0]
    last = n if place[-1] == len(volumes) - 1 else volumes[place[-1] + 1]
    run = list(range(first, last))
    encoded = np.flatnonzero(~without_encoding(images.scan.acquisition))
    mine, theirs = ([m for m in encoded.tolist() if (m in set(run)) == inside] for inside in (True, False))
    steps = [float(np.median(images.mean(b)) / np.median(images.mean(a))) for a, b in matched(images, theirs, mine)]
    return run, float(np.median(steps)) if steps else None


def _like_encoded(images: Images, b: np.ndarray, found: Likeness) -> bool:
    """Whether an image is as dark as those of some b-value, and more like them than like the main group."""
    bval, encoded = images.scan.acquisition.bval, ~without_encoding(images.scan.acquisition)
    if bval is None or not encoded.any() or found.scale > 1 / LEVEL:
        return False
    shell = bval.numpy().round(1)
    each = [likeness(images.y[:, encoded & (shell == value)].mean(1), b) for value in np.unique(shell[encoded])]
    return any(e.same_level and e.scatter < 0.5 * found.scatter + 0.05 and e.correlation > found.correlation - 0.05
               for e in each)  # fmt: skip


def _repeats(images: Images, empty: dict[int, str]) -> list[str]:
    """Repeats of any setting: a run that was measured twice, at another level the second time or displaced."""
    first: dict[tuple[float, ...], int] = {}
    pairs: list[tuple[int, int]] = []
    for m, key in enumerate(settings_of(images.scan)):
        if m in empty:
            continue
        if key in first:
            pairs.append((first[key], m))
        else:
            first[key] = m
    if len(pairs) < 2:
        return []
    levels = np.array([likeness(images.y[:, a], images.y[:, b]).scale for a, b in pairs])
    off = [b for (_, b), level in zip(pairs, levels, strict=True) if not 1 / LEVEL < level < LEVEL]
    odd = levels[[b in set(off) for _, b in pairs]]
    if len(off) < max(2, 0.25 * len(pairs)) or np.ptp(np.log(np.maximum(odd, 1e-9))) > 0.3:
        return []
    mates = [a for a, b in pairs if b in set(off)]
    return [
        f"{images.are(off)} {np.median(odd):.2f} times as bright as {images.names(mates)} at the same settings: two "
        "scalings, or another echo or repetition time? scale them to one level before joining, or fit the runs apart"
    ]
