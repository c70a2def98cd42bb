"""A fit on disk."""

import json

import pytest
import torch

import pyroqmri as pq
from pyroqmri.errors import InputError
from tests.helpers import msdki_data, rician, shells

QUICK = {"training.steps": 8, "training.batch_size": 64, "training.check_every": 4}
Y, ACQ = msdki_data(60, 0.05, s0=300.0)
POINT = ("least_squares", "maximum_likelihood")


def quick(recipe="hierarchical", y=Y, acq=ACQ, signal="msdki", **changes):
    settings = {} if recipe in POINT else QUICK
    return pq.fit(y, acq, signal=signal, recipe=recipe, **({"sigma": 15.0, "settings": settings} | changes))


def same(one, other, y=Y) -> bool:
    pairs = [(a.posterior(y)) for a in (one, other)]
    names = pairs[0].names
    equal = [torch.equal(pairs[0].mean[k].nan_to_num(-1), pairs[1].mean[k].nan_to_num(-1)) for k in names]
    equal += [torch.equal(pairs[0].sd[k].nan_to_num(-1), pairs[1].sd[k].nan_to_num(-1)) for k in names]
    return all(equal) and torch.equal(pairs[0].status, pairs[1].status)


@pytest.mark.parametrize("recipe", ["hierarchical", "vae_unig", "hierarchical_mixture", *POINT])
def test_a_fit_read_back_says_the_same(recipe, tmp_path):
    fit = quick(recipe)
    fit.save(tmp_path / "fit")
    assert {p.name for p in (tmp_path / "fit").iterdir()} == {"recipe.toml", "weights.safetensors", "fit.json"}
    again = pq.load_fit(tmp_path / "fit")
    assert same(fit, again)
    assert again.recipe == fit.recipe
    assert again.sigma == pytest.approx(fit.sigma)
    assert again.elbo == fit.elbo
    assert again.trace.step == fit.trace.step
    assert again.seed == fit.seed
    assert again.n_voxels == 60


def test_with_learned_noise(tmp_path):
    fit = quick(sigma="learn")
    fit.save(tmp_path)
    again = pq.load_fit(tmp_path)
    assert same(fit, again)
    assert again.sigma_record == fit.sigma_record


def test_with_noise_a_voxel(tmp_path):
    fit = quick(sigma=torch.linspace(10, 20, 60))
    fit.save(tmp_path)
    again = pq.load_fit(tmp_path)
    torch.testing.assert_close(again.noise.level, fit.noise.level, rtol=0, atol=0)
    assert same(fit, again)


@pytest.mark.parametrize(
    "changes", [{"fixed": {"K": 0.8}}, {"s0": "inferred"}, {"s0": 280.0}, {"likelihood": "gaussian"}]
)
def test_with_what_it_was_told(changes, tmp_path):
    fit = quick(**changes)
    fit.save(tmp_path)
    assert same(fit, pq.load_fit(tmp_path))


def test_with_directions(tmp_path):
    acq = shells(2, 12, 1.0, 2.0)
    y = 300 * rician(torch.rand(40, 26) * 0.3 + 0.3, 0.05)
    fit = quick(y=y, acq=acq, signal="ball_stick", tied={"D_iso": "D_par"})
    fit.save(tmp_path)
    again = pq.load_fit(tmp_path)
    assert again.tied == {"D_iso": "D_par"}
    assert same(fit, again, y)
    averaged = quick(y=y, acq=acq)
    averaged.save(tmp_path)
    assert same(averaged, pq.load_fit(tmp_path), y)


def test_the_record_says_what_happened(tmp_path):
    fit = quick(fixed={"K": 0.8})
    fit.save(tmp_path)
    record = json.loads((tmp_path / "fit.json").read_text())
    assert record["signal"] == "msdki"
    assert record["recipe"] == "hierarchical"
    assert record["likelihood"] == "rician"
    assert record["s0"] == "measured"
    assert record["fixed"] == {"K": 0.8}
    assert record["sigma"]["value"] == 15.0
    assert record["elbo"]["step"] == [4, 8]
    assert record["n_voxels"] == 60
    assert len(record["protocol"]["bval"]) == len(ACQ)
    assert {"torch", "pyro-ppl", "python"} <= set(record["versions"])
    unit = record["population"]["D"]
    assert unit["unit"] == "um2/ms"
    median, low, high = unit["median_and_68%"][0]
    assert low < median < high


def test_the_population_of_s0_is_in_the_units_of_the_scan(tmp_path):
    quick(s0="inferred").save(tmp_path)
    median, low, high = json.loads((tmp_path / "fit.json").read_text())["population"]["S0"]["median_and_68%"][0]
    assert median == pytest.approx(300, rel=0.3)
    assert low < median < high


def test_the_record_is_json_that_any_reader_takes(tmp_path):
    # nobody is kept aside, so their ELBO is no number
    quick(y=Y[:12], settings=QUICK | {"training.held_out": 0}).save(tmp_path)

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    json.loads((tmp_path / "fit.json").read_text(), parse_constant=refuse)


def test_no_pickle_anywhere(tmp_path):
    quick().save(tmp_path)
    for path in tmp_path.iterdir():
        assert b"\x80\x04" not in path.read_bytes()[:2]
    assert (tmp_path / "weights.safetensors").read_bytes()[8:9] == b"{"


def test_saving_again_replaces(tmp_path):
    quick(seed=1).save(tmp_path)
    second = quick(seed=2)
    second.save(tmp_path)
    assert same(second, pq.load_fit(tmp_path))
    assert len(list(tmp_path.iterdir())) == 3


def test_the_folder_above_is_found_too(tmp_path):
    fit = quick()
    fit.save(tmp_path / "out" / "fit")
    assert same(fit, pq.load_fit(tmp_path / "out"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-1] + bytes([b[-1] ^ 1]),
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b + b"\0",
    ],
)
def test_damaged_weights_are_refused(damage, tmp_path):
    quick().save(tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="is damaged: its checksum"):
        pq.load_fit(tmp_path)


@pytest.mark.parametrize("name", ["recipe.toml", "weights.safetensors", "fit.json"])
def test_a_missing_file_is_said(name, tmp_path):
    quick().save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="contains no readable fit"):
        pq.load_fit(tmp_path)


def test_no_folder_and_a_broken_record_are_said(tmp_path):
    with pytest.raises(InputError, match="contains no readable fit"):
        pq.load_fit(tmp_path / "nowhere")
    quick().save(tmp_path)
    (tmp_path / "fit.json").write_text('{"signal": ')
    with pytest.raises(InputError, match="contains no readable fit"):
        pq.load_fit(tmp_path)


@pytest.mark.parametrize("entry", ["protocol", "preparation", "signal", "sigma"])
def test_a_record_that_lacks_an_entry_is_said(entry, tmp_path):
    quick().save(tmp_path)
    record = json.loads((tmp_path / "fit.json").read_text())
    del record[entry]
    (tmp_path / "fit.json").write_text(json.dumps(record))
    with pytest.raises(InputError):
        pq.load_fit(tmp_path)


def test_nothing_half_written_carries_a_final_name(tmp_path, monkeypatch):
    quick().save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fails(source, target):
        raise OSError("no space")

    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(OSError, match="no space"):
        quick(seed=5).save(tmp_path)
    assert {k: (tmp_path / k).read_bytes() for k in before} == before
