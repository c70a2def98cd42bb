"""Recipe spatial over hierarchical on phantoms with slopes, borders and lesions of three voxels, written in numpy.

    python -m benchmarks.spatial msdki|ivim|ball_stick [--seeds 0 1] [--snr 12] [--share 0.6] [--shuffled] [--keep]

A row for each seed and parameter: RMSE over that of ``hierarchical``, coverage of 90 % intervals, the contrast of
lesions with the tissue around them over that under ``hierarchical``, and seconds. ``--keep`` adds the rows to
``benchmarks/results/spatial.json``.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import pyroqmri as pq
from benchmarks.noise_conditions import directions

RESULTS = Path(__file__).parent / "results" / "spatial.json"
FAINT = 0.1  # of the sd of a parameter: a smaller contrast of lesions is none
Truth = dict[str, np.ndarray]


def regions(size: int, seed: int) -> dict[str, np.ndarray]:
    """Images ``(size, size)`` bool: left of an oblique border, a disc of fluid, lesions of 3 voxels in a row."""
    x, y = np.indices((size, size))
    disc = (x - 0.75 * size) ** 2 + (y - 0.25 * size) ** 2 < (size / 8) ** 2
    lesion, rng = np.zeros((size, size), bool), np.random.default_rng(seed + 100)
    for i, j in [(6, 6), (6, 18), (6, 30), (14, 10), (14, 26), (20, 4), (26, 28), (30, 18)]:
        i, j = (np.array([i, j]) * size / 36).astype(int)
        cells = (i, slice(j, j + 3)) if rng.random() < 0.5 else (slice(i, i + 3), j)
        lesion[cells] = True
    return {"left": x + 0.3 * y < size / 2, "disc": disc, "lesion": lesion & ~disc}


def border_of(kind: np.ndarray) -> np.ndarray:
    """Voxels of an image of labels with a neighbour of another label."""
    found = np.zeros(kind.shape, bool)
    for axis in (0, 1):
        differs = np.diff(kind, axis=axis) != 0
        low, high = [slice(None)] * 2, [slice(None)] * 2
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        found[tuple(low)] |= differs
        found[tuple(high)] |= differs
    return found


def blend(size: int, seed: int, left: tuple, right: tuple, fluid: tuple, lesion: tuple) -> np.ndarray:
    """Values ``(size, size)``: start and slope over the image on either side, fluid, and the factor in a lesion."""
    x, y = np.indices((size, size)) / size
    where = regions(size, seed)
    value = np.where(where["left"], left[0] + left[1] * y, right[0] + right[1] * x)
    value = np.where(where["lesion"], value * lesion[0], value)
    return np.where(where["disc"], fluid[0], value)


def parts(volumes: list[int], share: float) -> list[int]:
    """So much of every shell's volumes."""
    return [max(1, round(share * n)) for n in volumes]


def msdki(size: int, seed: int, share: float = 1.0) -> tuple[Truth, np.ndarray, pq.Acquisition]:
    """D 0.8 and 1.2, K 1 and 0.6; lesions D 40 % higher, K 40 % lower."""
    b = np.repeat([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], parts([4, 6, 6, 6, 6, 6], share))
    d = blend(size, seed, (0.8, 0.15), (1.2, 0.15), (2.8,), (1.4,))
    k = blend(size, seed, (1.0, 0.15), (0.6, 0.15), (0.1,), (0.6,))
    truth = {"D": d.ravel(), "K": k.ravel()}
    d, k = d.reshape(-1, 1), k.reshape(-1, 1)
    return truth, np.exp(-b * d + b**2 * d**2 * k / 6), pq.Acquisition(bval=b)


def ivim(size: int, seed: int, share: float = 1.0) -> tuple[Truth, np.ndarray, pq.Acquisition]:
    """f 0.10 and 0.2, D* 60 and 30, D 1.4 and 1.1; lesions f 60 % higher, D 30 % lower."""
    b = np.repeat([0, 0.01, 0.02, 0.04, 0.08, 0.12, 0.2, 0.4, 0.6, 0.8], parts([4, *[2] * 9], share))
    f = blend(size, seed, (0.1, 0.04), (0.2, 0.04), (0.02,), (1.6,))
    fast = blend(size, seed, (60.0, 10.0), (30.0, 10.0), (30.0,), (1.0,))
    slow = blend(size, seed, (1.4, 0.1), (1.1, 0.1), (2.8,), (0.7,))
    truth = {"f": f.ravel(), "D_fast": fast.ravel(), "D_slow": slow.ravel()}
    f, fast, slow = (v.reshape(-1, 1) for v in (f, fast, slow))
    return truth, f * np.exp(-b * (fast + slow)) + (1 - f) * np.exp(-b * slow), pq.Acquisition(bval=b)


def ball_stick(size: int, seed: int, share: float = 1.0) -> tuple[Truth, np.ndarray, pq.Acquisition]:
    """f 0.6 and 0.35, D_par 1.8, D_iso 0.9 and 1.3, axes that turn; lesions f 40 % lower, D_iso 30 % higher."""
    zero, each = parts([4, 15], share)
    bval = np.repeat([0.0, 1.0, 2.0], [zero, each, each])
    bvec = np.concatenate([np.tile([0.0, 0, 1], (zero, 1)), directions(each), directions(each)])
    f = blend(size, seed, (0.6, 0.05), (0.35, 0.05), (0.05,), (0.6,)).reshape(-1, 1)
    par = blend(size, seed, (1.8, 0.1), (1.7, 0.1), (1.8,), (1.0,)).reshape(-1, 1)
    iso = blend(size, seed, (0.9, 0.1), (1.3, 0.1), (2.8,), (1.3,)).reshape(-1, 1)
    x, y = (i.reshape(-1, 1) / size for i in np.indices((size, size)))
    axis = np.concatenate([np.cos(2 * x), np.sin(2 * x) * np.cos(y), np.sin(2 * x) * np.sin(y)], 1)
    cos = axis @ bvec.T
    signal = f * np.exp(-bval * par * cos**2) + (1 - f) * np.exp(-bval * iso)
    truth = {"f": f.ravel(), "D_par": par.ravel(), "D_iso": iso.ravel()}
    return truth, signal, pq.Acquisition(bval=bval, bvec=bvec)


SIGNALS = {"msdki": msdki, "ivim": ivim, "ball_stick": ball_stick}


def groups(size: int, seed: int) -> dict[str, np.ndarray]:
    """Indices of all voxels, of those in smooth tissue, in tissue beside a border, in fluid, and in and by lesions."""
    where = regions(size, seed)
    kind = where["left"] + 2 * where["disc"]
    border, lesion = border_of(kind).ravel(), where["lesion"].ravel()
    near = border_of(where["lesion"].astype(int)).ravel() & ~lesion
    fluid = where["disc"].ravel()
    smooth = ~border & ~lesion & ~near & ~fluid
    return {
        "all": np.arange(size**2), "smooth": np.flatnonzero(smooth),
        "border": np.flatnonzero(border & ~lesion & ~fluid), "fluid": np.flatnonzero(fluid),
        "by_lesion": np.flatnonzero(near), "lesion": np.flatnonzero(lesion),
    }  # fmt: skip


def contrast(value: np.ndarray, size: int, seed: int) -> float:
    """Mean over lesions of their difference to smooth tissue within three voxels of them, of values ``(N,)``."""
    lesion = groups(size, seed)["lesion"]
    smooth = groups(size, seed)["smooth"]
    at = np.argwhere(np.ones((size, size)))
    found = []
    for i in lesion:
        near = smooth[np.abs(at[smooth] - at[i]).max(1) <= 3]
        same = near[regions(size, seed)["left"].ravel()[near] == regions(size, seed)["left"].ravel()[i]]
        found.append(value[i] - value[same].mean())
    return float(np.mean(found))


def row(truth: Truth, posts: dict[str, Any], name: str, size: int, seed: int) -> dict[str, Any]:
    """Figures of one parameter."""
    out: dict[str, Any] = {"parameter": name}
    for group, index in groups(size, seed).items():
        error = {}
        for recipe, post in posts.items():
            value, inside = post.mean[name].numpy(), post.interval(0.9)[name].numpy()
            error[recipe] = float(np.sqrt(np.nanmean((value - truth[name])[index] ** 2)))
            low, high = inside[index].T
            share = float(np.mean((low < truth[name][index]) & (truth[name][index] < high)))
            out[f"cover {group} {recipe}"] = round(share, 3)
        out[f"rmse {group}"] = round(error["spatial"] / error["hierarchical"], 3)
        out[f"rmse {group} hierarchical"] = float(f"{error['hierarchical']:.3g}")
    true = contrast(truth[name], size, seed)
    kept = {recipe: contrast(post.mean[name].numpy(), size, seed) for recipe, post in posts.items()}
    if abs(true) > FAINT * truth[name].std():
        out["contrast"] = round(kept["spatial"] / kept["hierarchical"], 3)
        out["contrast of truth"] = [round(kept[r] / true, 3) for r in ("hierarchical", "spatial")]
    return out


def run(
    signal: str, seed: int, size: int, snr: float, share: float, shuffled: bool, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of one phantom."""
    truth, clean, acq = SIGNALS[signal](size, seed, share)
    rng = np.random.default_rng(seed)
    if shuffled:
        order = rng.permutation(size**2)
        truth, clean = {k: v[order] for k, v in truth.items()}, clean[order]
    noise = rng.standard_normal((2, *clean.shape)) / snr
    y, place = 1000 * np.hypot(clean + noise[0], noise[1]), np.argwhere(np.ones((size, size, 1)))
    posts, seconds, fits = {}, {}, {}
    for recipe in ("hierarchical", "spatial"):
        begin, where = time.perf_counter(), {"voxels": place} if recipe == "spatial" else {}
        own = settings if recipe == "spatial" else {k: v for k, v in settings.items() if not k.startswith("prior")}
        fits[recipe] = fit = pq.fit(y, acq, signal=signal, recipe=recipe, sigma=1000 / snr, seed=seed, causes=False,
                                    settings={"training.steps": 60, **own}, **where)  # fmt: skip
        posts[recipe] = fit.posterior(y, **where)
        _ = posts[recipe].mean
        seconds[recipe] = round(time.perf_counter() - begin, 1)
    common = {"signal": signal, "seed": seed, "snr": snr, "size": size, "volumes": len(acq), "shuffled": shuffled,
              "settings": settings, "seconds": seconds}  # fmt: skip
    return [common | row(truth, posts, name, size, seed) for name in truth]


def show(found: dict[str, Any]) -> str:
    """A row in a line."""
    kinds = ("all", "smooth", "border", "fluid", "by_lesion", "lesion")
    cover = " ".join(f"{found[f'cover {g} spatial']:.2f}({found[f'cover {g} hierarchical']:.2f})" for g in kinds)
    rmse = " ".join(f"{found[f'rmse {g}']:.2f}" for g in kinds)
    return (f"{found['signal']} seed {found['seed']} {found['parameter']:7s} rmse {rmse} cover {cover} "
            f"contrast {found.get('contrast')} {found.get('contrast of truth')} {found['seconds']}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("signal", choices=SIGNALS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", type=int, default=36)
    parser.add_argument("--snr", type=float, default=12)
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of every shell's volumes; 0.6 leaves 20 of msdki's 34"
    )
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    settings = {k: json.loads(v) for k, v in (s.split("=") for s in args.set)}
    for seed in args.seeds:
        for found in run(args.signal, seed, args.size, args.snr, args.share, args.shuffled, settings):
            print(show(found), flush=True)
            if args.keep:
                rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
                RESULTS.write_text(json.dumps([*rows, found], indent=1) + "\n")


if __name__ == "__main__":
    main()
