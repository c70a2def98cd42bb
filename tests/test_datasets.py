"""Real scans fetched, checked, cached; and plain words when they cannot be had."""

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pyroqmri import datasets
from pyroqmri.datasets import fetch
from pyroqmri.errors import InputError
from pyroqmri.io import read_scan


def no_network(monkeypatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A stand-in for the wheel, which pip finds in a folder instead of on the network."""
    path = tmp_path / "index" / "mdt-1.2.7-py2.py3-none-any.whl"
    path.parent.mkdir()
    files = {}
    with zipfile.ZipFile(path, "w") as archive:
        for ours, (theirs, _) in datasets._FILES.items():
            content = f"content of {ours}".encode()
            archive.writestr(f"mdt/data/mdt_example_data/{theirs}", content)
            files[ours] = (theirs, hashlib.sha256(content).hexdigest())
        archive.writestr("mdt-1.2.7.dist-info/METADATA", "Metadata-Version: 2.1\nName: mdt\nVersion: 1.2.7\n")
        archive.writestr("mdt-1.2.7.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py2-none-any\nTag: py3-none-any\n")
        archive.writestr("mdt-1.2.7.dist-info/LICENSE", "LGPL")
        archive.writestr("mdt-1.2.7.dist-info/RECORD", "")
        archive.writestr("mdt/code_that_is_not_kept.py", "")
    no_network(monkeypatch)
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setattr(datasets, "_FILES", files)
    monkeypatch.setattr(datasets, "_WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setenv("PYROQMRI_CACHE", str(tmp_path / "cache"))
    return path


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_download_keeps_the_two_scans_and_nothing_else(wheel, tmp_path, capfd):
    scan = fetch("b1k_b2k")
    assert scan.image.read_text() == "content of b1k_b2k/b1k_b2k_dwi.nii.gz"
    assert listed(tmp_path / "cache") == sorted(
        f"mdt-1.2.7/{name}" for name in (*datasets._FILES, "LICENSE", "PROVENANCE.md")
    )
    provenance = (tmp_path / "cache" / "mdt-1.2.7" / "PROVENANCE.md").read_text()
    assert "mdt 1.2.7" in provenance
    assert "LGPL-3.0" in provenance
    assert datasets._WHEEL_SHA256 in provenance
    assert "LGPL-3.0" in scan.licence
    assert "mdt 1.2.7" in scan.source
    assert "17 MB" in capfd.readouterr().err
    wheel.unlink()  # from now on the cache has to do
    assert fetch("multishell_b6k").bvec.read_text() == "content of multishell_b6k/multishell_b6k_dwi.bvec"
    assert capfd.readouterr().err == ""


def test_a_damaged_cache_is_fetched_again(wheel):
    scan = fetch("b1k_b2k", progress=False)
    whole = scan.image.read_bytes()
    scan.image.write_bytes(whole[:-1])
    assert fetch("b1k_b2k", progress=False).image.read_bytes() == whole


def test_another_wheel_is_refused(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_WHEEL_SHA256", "0" * 64)
    with pytest.raises(InputError, match="SHA-256"):
        fetch("b1k_b2k", progress=False)
    assert listed(tmp_path / "cache") == []


def test_without_network_and_cache_the_way_out_is_named(tmp_path, monkeypatch):
    no_network(monkeypatch)
    monkeypatch.setenv("PYROQMRI_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="--dataset small") as error:
        fetch("b1k_b2k", progress=False)
    assert "\n" not in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PYROQMRI_CACHE", str(tmp_path / "file"))
    for name in ("b1k_b2k", "small"):
        with pytest.raises(InputError, match=r"cannot be written.*PYROQMRI_CACHE"):
            fetch(name, progress=False)
    with pytest.raises(InputError, match="b1k_b2k, multishell_b6k, small"):
        fetch("large")


def test_the_small_scan_needs_no_network(tmp_path, monkeypatch):
    no_network(monkeypatch)
    monkeypatch.setenv("PYROQMRI_CACHE", str(tmp_path / "cache"))
    found = fetch("small")
    assert "crop" in found.description
    assert "no network" in found.description
    scan = read_scan(found.image, bval=found.bval, bvec=found.bvec, mask=found.mask)
    assert scan.y.shape == (600, 102)
    assert listed(tmp_path / "cache") == ["small/small_101D_mask.nii.gz"]


def real(name: str) -> datasets.Dataset:
    try:
        return fetch(name, progress=False)
    except InputError as error:
        pytest.skip(f"needs the network once: {error}")


@pytest.mark.parametrize(
    ("name", "protocol", "n_voxels"),
    [
        ("b1k_b2k", "13 x b 0, 30 x b 1000, 60 x b 2000 s/mm2", 8865),
        ("multishell_b6k", "6 x b 0, 3 x b 750", 8963),
    ],
)
def test_the_real_scans_read_as_they_are_described(name, protocol, n_voxels):
    found = real(name)
    scan = read_scan(found.image, bval=found.bval, bvec=found.bvec, mask=found.mask)
    assert scan.ref.prefix == name
    assert scan.ref.shape == (104, 104, 2)
    assert len(scan.y) == n_voxels
    assert any(note.startswith(protocol) for note in scan.notes)
    b0 = scan.acquisition.b0.numpy()
    assert np.isfinite(scan.y).all()
    assert 200 < np.median(scan.y[:, b0]) < 800


def test_two_downloads_at_once_end_with_one_cache_and_a_killed_one_leaves_nothing_for_ever(tmp_path, monkeypatch):
    digest = hashlib.sha256(b"scan").hexdigest()
    folder, scan = tmp_path / "mdt", "b1k_b2k/b1k_b2k_dwi.nii.gz"
    monkeypatch.setattr(datasets, "_FILES", {scan: ("theirs", digest)})
    monkeypatch.setattr(datasets, "_download", lambda where: where)

    def unpack(_, kept):
        for place in (kept, folder):  # the other process is done while this one unpacks
            (place / scan).parent.mkdir(parents=True)
            (place / scan).write_bytes(b"scan")

    monkeypatch.setattr(datasets, "_unpack", unpack)
    old, new = tmp_path / ".fetch-old", tmp_path / ".fetch-new"
    for left in (old, new):
        left.mkdir()
    os.utime(old, (0, 0))
    datasets._fetch_into(folder, progress=False)
    assert (folder / scan).read_bytes() == b"scan"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".fetch-new", "mdt"]
