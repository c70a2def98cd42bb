"""Maps carry the names, units, codes and geometry that the contract promises."""

import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from pyroqmri.errors import InputError
from pyroqmri.maps import map_name, scatter, write_maps
from pyroqmri.measurements.status import STATUS
from pyroqmri.signals import SIGNALS

SHAPE = (5, 4, 3)
AFFINE = np.array([[-2.0, 0.1, 0, 7], [0.1, 2, 0, -8], [0, 0, 3, 9], [0, 0, 0, 1]])
WORDS = {"signal_name": "ball_stick", "suffix": "dwimap", "recipe": "hierarchical", "likelihood": "rician"}


class FakePosterior:
    """What write_maps asks of a posterior, with numbers that tell voxels apart."""

    has_sd = True

    def __init__(self, n, signal="ball_stick", status=None):
        model = SIGNALS[signal]
        table = [p for p in (*model.parameters, *model.derived_parameters) if not p.is_direction]
        self.parameters = {p.name: p for p in table}
        self.names = tuple(self.parameters)
        base = torch.arange(n, dtype=torch.float32)
        self.mean = {name: base + 100 * i for i, name in enumerate(self.names)}
        self.sd = {name: base / 10 + i for i, name in enumerate(self.names)}
        self.status = torch.ones(n, dtype=torch.uint8) if status is None else status
        axes = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
        self.direction = axes / axes.norm(dim=-1, keepdim=True) if signal == "ball_stick" else None
        self.axes = {"n": self.direction} if signal == "ball_stick" else {}
        self.ppc = base / n
        self.residual = 1 + base / n
        self.responsibilities = None
        self.khat = base / 100

    def quantile(self, q):
        return {name: self.mean[name] + (q - 0.5) * self.sd[name] for name in self.names}

    def cone(self, p, name):
        return torch.full((len(self.status),), 90 * p)


@pytest.fixture
def mask():
    mask = np.zeros(SHAPE, bool)
    mask[1:4, 1:3, :] = True
    mask[0, 0, 0] = True
    return mask


@pytest.fixture
def ref():
    return SimpleNamespace(prefix="sub-01_ses-2", shape=SHAPE, affine=AFFINE)


def write(out, posterior, ref, mask, **changes):
    words = {**WORDS, "sources": ["sub-01_ses-2_dwi.nii.gz"], **changes}
    return write_maps(posterior, ref, mask, out, **words)[0]


def test_every_map_has_its_contract_name(tmp_path, ref, mask):
    paths = write(tmp_path, FakePosterior(int(mask.sum())), ref, mask)
    start = "sub-01_ses-2_model-ball_stick"
    maps = {
        f"{start}_param-{p}_stat-{s}_dwimap"
        for p in ("f", "D_par", "D_iso", "theta", "phi")
        for s in ("mean", "sd", "q05", "q95")
    }
    maps |= {f"{start}_param-n_stat-mean_dwimap", f"{start}_param-n_stat-cone90_dwimap"}
    maps |= {f"{start}_desc-ppc_dwimap", f"{start}_desc-residual_dwimap", f"{start}_desc-status_mask"}
    names = {m + e for m in maps for e in (".nii.gz", ".json")} | {"dataset_description.json", ".bidsignore"}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert {p.name for p in paths} == names


def test_values_come_back_at_their_voxels_and_places(tmp_path, ref, mask):
    posterior = FakePosterior(int(mask.sum()))
    write(tmp_path, posterior, ref, mask)
    image = nib.load(tmp_path / "sub-01_ses-2_model-ball_stick_param-D_par_stat-q95_dwimap.nii.gz")
    data = image.get_fdata()
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    np.testing.assert_allclose(data[mask], posterior.quantile(0.95)["D_par"], rtol=1e-6)
    assert (data[~mask] == 0).all()
    axes = nib.load(tmp_path / "sub-01_ses-2_model-ball_stick_param-n_stat-mean_dwimap.nii.gz").get_fdata()
    assert axes.shape == (*SHAPE, 3)
    np.testing.assert_allclose(axes[mask], posterior.direction, rtol=1e-6)
    cone = nib.load(tmp_path / "sub-01_ses-2_model-ball_stick_param-n_stat-cone90_dwimap.nii.gz").get_fdata()
    np.testing.assert_allclose(cone[mask], 81.0)


def test_each_map_holds_the_statistic_that_its_name_says(tmp_path, ref, mask):
    posterior = FakePosterior(int(mask.sum()))
    write(tmp_path, posterior, ref, mask)
    expected = {
        "mean": posterior.mean, "sd": posterior.sd, "q05": posterior.quantile(0.05), "q95": posterior.quantile(0.95)
    }  # fmt: skip
    for stat, values in expected.items():
        for name in posterior.names:
            path = tmp_path / f"sub-01_ses-2_model-ball_stick_param-{name}_stat-{stat}_dwimap.nii.gz"
            np.testing.assert_allclose(nib.load(path).get_fdata()[mask], values[name], rtol=1e-6)


def words(folder, stat):
    """What the sidecars of one statistic say it is, after the parameter's own words."""
    found = [json.loads(path.read_text())["Description"] for path in folder.glob(f"*_stat-{stat}_dwimap.json")]
    return {text.rpartition(": ")[2] for text in found}


def test_the_words_of_a_sidecar_are_those_of_its_statistic(tmp_path, ref, mask):
    posterior = FakePosterior(int(mask.sum()), signal="msdki")
    write(tmp_path, posterior, ref, mask, signal_name="msdki")
    assert words(tmp_path, "mean") == {"posterior mean"}
    assert words(tmp_path, "sd") == {"posterior standard deviation"}
    assert words(tmp_path, "q05") == {"5 % quantile of the posterior"}
    assert words(tmp_path, "q95") == {"95 % quantile of the posterior"}


def test_sidecars_say_what_a_map_is(tmp_path, ref, mask):
    write(tmp_path, FakePosterior(int(mask.sum())), ref, mask)
    said = json.loads((tmp_path / "sub-01_ses-2_model-ball_stick_param-D_par_stat-sd_dwimap.json").read_text())
    assert said == {
        "Parameter": "D_par",
        "Symbol": r"D_\parallel",
        "Statistic": "sd",
        "Units": "um2/ms",
        "Description": "diffusivity along the stick: posterior standard deviation",
        "Bounds": [0.01, 3.5],
        "Model": "ball_stick",
        "Recipe": "hierarchical",
        "Likelihood": "rician",
        "Sources": ["sub-01_ses-2_dwi.nii.gz"],
    }
    assert json.loads((tmp_path / "dataset_description.json").read_text())["DatasetType"] == "derivative"


def test_status_map_has_a_table_and_voxels_without_numbers(tmp_path, ref, mask):
    n = int(mask.sum())
    status = torch.ones(n, dtype=torch.uint8)
    status[2], status[3], status[4] = 2, 3, 7
    posterior = FakePosterior(n, status=status)
    for values in (*posterior.mean.values(), *posterior.sd.values(), posterior.ppc, posterior.residual):
        values[2:4] = torch.nan
    posterior.direction[2:4] = torch.nan
    write(tmp_path, posterior, ref, mask)
    codes = np.asarray(nib.load(tmp_path / "sub-01_ses-2_model-ball_stick_desc-status_mask.nii.gz").dataobj)
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes[mask], status)
    assert (codes[~mask] == 0).all()
    said = json.loads((tmp_path / "sub-01_ses-2_model-ball_stick_desc-status_mask.json").read_text())
    assert said["Levels"] == {str(k): v for k, v in STATUS.items()}
    assert said["Counts"] == {"1": n - 3, "2": 1, "3": 1, "7": 1}
    mean = nib.load(tmp_path / "sub-01_ses-2_model-ball_stick_param-f_stat-mean_dwimap.nii.gz").get_fdata()
    np.testing.assert_array_equal(np.isnan(mean), np.isin(codes, (2, 3)))


@pytest.mark.parametrize("lost", ["mean", "sd", "ppc", "residual"])
def test_a_lost_number_never_passes_for_a_fine_voxel(tmp_path, ref, mask, lost):
    posterior = FakePosterior(int(mask.sum()))
    values = getattr(posterior, lost)
    values = values["D_iso"] if isinstance(values, dict) else values
    values[5] = torch.inf
    write(tmp_path, posterior, ref, mask)
    codes = np.asarray(nib.load(tmp_path / "sub-01_ses-2_model-ball_stick_desc-status_mask.nii.gz").dataobj)[mask]
    assert codes[5] == 5
    assert (np.delete(codes, 5) == 1).all()
    for path in tmp_path.glob("*_dwimap.nii.gz"):
        data = nib.load(path).get_fdata()
        assert not np.isinf(data).any(), path.name
        assert not np.isnan(data[mask][np.arange(len(codes)) != 5]).any(), path.name


def test_a_network_writes_no_sd(tmp_path, ref, mask):
    posterior = FakePosterior(int(mask.sum()), signal="msdki")
    posterior.has_sd, posterior.sd, posterior.ppc = False, None, None
    posterior.quantile = None
    write(tmp_path, posterior, ref, mask, signal_name="msdki", recipe="supervised_gt")
    maps = {p.name for p in tmp_path.glob("*.nii.gz")}
    start = "sub-01_ses-2_model-msdki"
    assert maps == {
        f"{start}_param-D_stat-mean_dwimap.nii.gz",
        f"{start}_param-K_stat-mean_dwimap.nii.gz",
        f"{start}_desc-status_mask.nii.gz",
    }
    said = json.loads((tmp_path / f"{start}_param-D_stat-mean_dwimap.json").read_text())
    assert "no standard deviation" in said["Description"]


def test_classes_and_khat_on_request(tmp_path, ref, mask):
    n = int(mask.sum())
    posterior = FakePosterior(n, signal="msdki")
    posterior.responsibilities = torch.tensor([[0.25, 0.75]]).expand(n, 2)
    write(tmp_path, posterior, ref, mask, signal_name="msdki", class_names=["tissue", "water"], khat=True)
    probabilities = nib.load(tmp_path / "sub-01_ses-2_model-msdki_param-C_stat-prob_dwimap.nii.gz").get_fdata()
    np.testing.assert_allclose(probabilities[mask], [[0.25, 0.75]] * n)
    said = json.loads((tmp_path / "sub-01_ses-2_model-msdki_param-C_stat-prob_dwimap.json").read_text())
    assert said["Classes"] == ["tissue", "water"]
    assert (tmp_path / "sub-01_ses-2_model-msdki_desc-khat_dwimap.nii.gz").is_file()


def test_only_the_quantity_of_a_suffix_bears_it(tmp_path, ref, mask):
    write(tmp_path, FakePosterior(int(mask.sum()), signal="msdki"), ref, mask, signal_name="msdki", suffix="T1map")
    assert (tmp_path / "sub-01_ses-2_model-msdki_param-D_stat-mean_map.nii.gz").is_file()
    assert (tmp_path / "sub-01_ses-2_model-msdki_desc-ppc_dwimap.nii.gz").is_file()


def test_equal_posteriors_are_equal_files(tmp_path, ref, mask):
    for folder in ("a", "b"):
        write(tmp_path / folder, FakePosterior(int(mask.sum())), ref, mask)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_least_squares_says_what_its_sd_is(tmp_path, ref, mask):
    import pyroqmri as pq

    acquisition = pq.Acquisition(bval=torch.tensor([0.0, 0.5, 1.0, 2.0]))
    D = torch.linspace(0.5, 2.0, int(mask.sum()))
    y = 100 * torch.exp(-acquisition.bval * D[:, None])
    fit = pq.fit(y, acquisition, signal="msdki", recipe="least_squares", sigma=1.0)
    write(tmp_path, fit.posterior(y), ref, mask, signal_name="msdki", recipe="least_squares")
    start = "sub-01_ses-2_model-msdki"
    said = json.loads((tmp_path / f"{start}_param-D_stat-sd_dwimap.json").read_text())
    assert said["Description"] == "mean-signal diffusivity: asymptotic standard error"
    assert words(tmp_path, "mean") == {"estimate"}
    assert words(tmp_path, "q05") == {"estimate - 1.64 asymptotic standard errors"}
    assert words(tmp_path, "q95") == {"estimate + 1.64 asymptotic standard errors"}
    mean = nib.load(tmp_path / f"{start}_param-D_stat-mean_dwimap.nii.gz").get_fdata()[mask]
    np.testing.assert_allclose(mean, D, atol=2e-3)


def test_mask_image_and_posterior_must_agree(tmp_path, ref, mask):
    with pytest.raises(InputError, match="the mask is"):
        write(tmp_path, FakePosterior(int(mask.sum())), ref, mask[:4])
    with pytest.raises(InputError, match="19 voxels and the posterior 18"):
        write(tmp_path, FakePosterior(int(mask.sum()) - 1), ref, mask)


def test_scatter_keeps_the_order_of_the_mask(mask):
    values = np.arange(mask.sum())
    np.testing.assert_array_equal(scatter(values, mask)[mask], values)


def test_a_name_without_prefix_has_no_leading_underscore():
    assert map_name("", "msdki", "desc-ppc", "dwimap") == "model-msdki_desc-ppc_dwimap"


def test_nothing_half_written_keeps_a_name(tmp_path, ref, mask, monkeypatch):
    def fail(self, content):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, FakePosterior(int(mask.sum())), ref, mask)
    assert list(tmp_path.iterdir()) == []
