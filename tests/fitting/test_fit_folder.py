"""A fit's folder is believed only as a whole: what was changed, damaged or never ours is refused by name."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

import pyroqmri as pq
from pyroqmri.errors import InputError
from pyroqmri.fitting.load_denoiser import is_denoiser
from pyroqmri.priors import Hierarchical
from tests.helpers import msdki_data, reseal

Y, ACQ = msdki_data(40, 0.05, s0=300.0)
NUMBERS = tuple("0123456789")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A hierarchical fit's folder, and what it says."""
    folder = tmp_path_factory.mktemp("saved") / "fit"
    settings = {"training.steps": 4, "training.check_every": 2, "guide.width": 8}
    fit = pq.fit(Y, ACQ, signal="msdki", recipe="hierarchical", sigma=15.0, settings=settings)
    fit.save(folder)
    return folder, fit.posterior(Y[:10]).mean["D"]


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(saved[0], tmp_path / "fit"))


def record_of(folder):
    return json.loads((folder / "fit.json").read_text())


def refused(folder, said):
    with pytest.raises(InputError, match=said):
        pq.load_fit(folder)


def edited(folder, **entries):
    """Change entries as a text editor does, checksums left alone."""
    (folder / "fit.json").write_text(json.dumps(record_of(folder) | entries))


def doubled(record):
    return {name: [2 * x for x in values] for name, values in record["protocol"].items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda r: {"protocol": doubled(r)},
        lambda r: {"sigma": r["sigma"] | {"value": 30.0}},
        lambda r: {"fixed": {"K": 0.8}},
        lambda r: {"preparation": r["preparation"] | {"magnitude": False}},
        lambda r: {"n_voxels": 7},
        lambda r: {"pyroqmri": "99.0"},
        lambda r: {"recalibration": {"maps": {}, "made": {}}},
    ],
)
def test_a_record_that_was_edited_is_refused(folder, change):
    edited(folder, **change(record_of(folder)))
    refused(folder, r"fit\.json is damaged: it was changed after it was written; copy the folder again, or train again")


def test_another_recipe_is_refused(folder, saved):
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text.replace("steps = 4", "steps = 5"))
    refused(folder, r"recipe\.toml is damaged: its checksum is not the one in fit\.json")
    # with checksums that agree, the record still names its own
    reseal(folder, toml=(Path(pq.__file__).parents[1] / "models" / "vae_unig.toml").read_bytes())
    refused(folder, "entry 'recipe' is 'hierarchical', and recipe.toml is 'vae_unig'")


def test_a_newer_format_is_said(folder):
    edited(folder, format=99, pyroqmri="7.1")
    refused(folder, r"newer pyroqmri \(version '7\.1', format 99; this one reads up to 2\); update pyroqmri")
    edited(folder, format="2")
    refused(folder, "has the format '2', which no pyroqmri wrote")


def test_an_older_fit_is_read_with_a_warning(folder, saved):
    record = record_of(folder)
    kept = {k: v for k, v in record.items() if k not in ("format", "recipe_sha256", "record_sha256")}
    (folder / "fit.json").write_text(json.dumps(kept))
    fit = pq.load_fit(folder)
    assert torch.equal(fit.posterior(Y[:10]).mean["D"], saved[1])
    assert "older pyroqmri, which kept no checksums" in fit.warnings[0]
    assert not any("older pyroqmri" in w for w in pq.load_fit(saved[0]).warnings)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (
            {"bounds": {"D": [0.0, 3.0, 0.0], "K": [-1.0, 3.0, 0.0]}},
            "other bounds of D than msdki has now",
        ),
        ({"sigma": {"value": 0, "method": "given", "note": ""}}, "'sigma.value' must be above zero and finite, got 0"),
        ({"sigma": {"value": -1.0, "method": "given", "note": ""}}, "'sigma.value' must be above zero"),
        ({"sigma": {"value": "15", "method": "given", "note": ""}}, "'sigma.value' must be a finite number, got '15'"),
        ({"sigma": {"value": True, "method": "given", "note": ""}}, "'sigma.value' must be a finite number, got True"),
        ({"sigma": {"method": "given", "note": ""}}, "'sigma.value' is missing"),
        ({"sigma": [15.0]}, "'sigma' must be a table"),
        ({"preparation": None}, "'preparation' is missing"),
        ({"preparation": {"s0": 0.0, "scale": 1.0, "average": False, "magnitude": True}}, "'preparation.s0' must be"),
        ({"preparation": {"s0": "b0", "scale": 1.0, "average": False, "magnitude": True}}, "'preparation.s0' must be"),
        ({"preparation": {"s0": 1.0, "scale": 1.0, "average": 0, "magnitude": True}}, "average' must be true or false"),
        ({"preparation": {"more": 1}}, "'preparation.more' is unknown"),
        ({"protocol": {"bval": ["a"] * 16}}, "'protocol' is no protocol"),
        ({"protocol": {"bval": [-1.0] * 16}}, "bval contains negative values"),
        ({"protocol": {"bvals": [1.0]}}, "unknown setting 'bvals'"),
        ({"protocol": {}}, "'protocol' is no protocol"),
        ({"signal": 3}, "'signal' must be text, got 3"),
        ({"signal": "mine"}, "is a fit of the signal 'mine', and there is none of that name here; register it"),
        ({"likelihood": "gaussian"}, "'likelihood' is 'gaussian', and that of recipe.toml is 'rician'"),
        ({"fixed": {"K": [1]}}, "'fixed.K' must be a finite number"),
        ({"seed": 1.5}, "'seed' must be a whole number"),
        ({"warnings": "none"}, "'warnings' must be a list"),
        ({"trace": {"step": ["x"]}}, r"'trace.step\[0\]' must be a whole number"),
        ({"recalibration": {"maps": {"D": {"draws": [1.0], "truths": [1.0]}}, "made": {}}}, "is no map of a parameter"),
        ({"recalibration": {"maps": {"Q": {"draws": [1, 2, 3], "truths": [1, 2, 3]}}, "made": {}}}, "maps.Q"),
    ],
)
def test_an_entry_that_no_fit_has_is_refused_by_name(folder, entries, said):
    reseal(folder, **entries)
    refused(folder, said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", "contains no readable fit: .*no table of names and values"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "nested too deeply"),
        (b'{"sigma": ' + b"9" * 400 + b"}", "a number of 400 digits"),
        (b'{"sigma": NaN}', "is damaged"),
        (b"\0" * 50, "NUL bytes"),
        (b"{", "is not valid JSON"),
    ],
)
def test_a_record_that_is_no_record_is_refused(folder, content, said):
    (folder / "fit.json").write_bytes(content)
    refused(folder, said)
    with pytest.raises(InputError):
        pq.load_denoiser(folder)


def test_weights_that_no_training_leaves_are_refused(folder):
    kept = load((folder / "weights.safetensors").read_bytes())
    name = "guide.network.0.weight"
    for value, said in (
        (kept[name] * float("nan"), f"has NaN, or no numbers, in {name}"),
        (torch.zeros(3, 3), "other weights than the parts of recipe.toml need .*size mismatch"),
        (kept[name].to(torch.complex64), "no numbers"),
    ):
        reseal(folder, tensors=save(kept | {name: value}))
        refused(folder, said)
    reseal(folder, tensors=save(kept | {"guide.more": torch.zeros(2)}))
    refused(folder, "Unexpected key")
    reseal(folder, tensors=save({k: v for k, v in kept.items() if k != name}))
    refused(folder, "Missing key")
    reseal(folder, tensors=save(kept | {"noise.level": torch.tensor([15.0, 0.0])}))
    refused(folder, "noise level that is not above zero")
    for content in (b"not safetensors at all", (2**40).to_bytes(8, "little") + b"{}", b""):
        reseal(folder, tensors=content)
        refused(folder, "is no safetensors file")


@pytest.mark.parametrize("name", ["fit.json", "recipe.toml", "weights.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(folder, name, kind):
    path = folder / name
    path.unlink()
    {"pipe": os.mkfifo, "device": lambda p: os.symlink("/dev/zero", p), "folder": os.mkdir}[kind](path)
    refused(folder, f"is a {kind}")
    is_denoiser(folder)  # comes to an end


def test_a_file_of_a_terabyte_is_not_read(folder):
    with open(folder / "weights.safetensors", "wb") as file:
        file.truncate(10**12)
    refused(folder, "is 1000000000000 bytes long")


def test_a_name_that_no_folder_has(tmp_path):
    for name in ("a\0b", tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="contains no readable fit"):
            pq.load_fit(name)
        assert not is_denoiser(name)


def test_another_class_is_told_from_a_moved_one(folder):
    """A fit by ``mod:Student`` is not one by another class; the same class may live in another module by now."""

    class Student(Hierarchical):
        pass

    toml = (folder / "recipe.toml").read_bytes().replace(b'kind = "hierarchical"', b'kind = "mod:Student"')
    reseal(folder, toml=toml)
    with pytest.raises(InputError, match="trained with prior 'mod:Student', and hierarchical was given"):
        pq.load_fit(folder, prior=Hierarchical)
    assert isinstance(pq.load_fit(folder, prior=Student).model.prior, Student)


def test_a_class_that_cannot_be_made_is_no_damaged_record(folder):
    class Broken(Hierarchical):
        def __init__(self, n_tissue, n_direction=0):
            raise TypeError("my own mistake")

    reseal(folder, toml=(folder / "recipe.toml").read_bytes().replace(b'kind = "hierarchical"', b'kind = "mod:Broken"'))
    with pytest.raises(InputError, match=r"prior .*Broken cannot be made with .*TypeError: my own mistake") as caught:
        pq.load_fit(folder, prior=Broken)
    assert isinstance(caught.value.__cause__, TypeError)


def test_what_was_recalibrated_is_whole_again(folder):
    from pyroqmri.commands.check import _keep
    from pyroqmri.posterior.recalibration import Recalibration

    fit = pq.load_fit(folder)
    levels = (-1.0, 0.0, 1.0)
    fit.recalibration = Recalibration({"D": (levels, tuple(1.1 * x for x in levels))}, {"n": 3})
    _keep(fit, folder)
    assert pq.load_fit(folder).recalibration == fit.recalibration


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One change of a file: a byte, a stretch gone or twice, a number, a word."""
    i, j = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    j = min(j, i + 40)
    kind = rng.randrange(6)
    if kind == 0:
        return content[:i] + bytes([rng.randrange(256)]) + content[i + 1 :]
    if kind == 1:
        return content[:i] + content[j:]
    if kind == 2:
        return content[:j] + content[i:j] + content[j:]
    if kind == 3:
        return content[:i]
    if kind == 4:
        return content.replace(rng.choice(NUMBERS).encode(), rng.choice([b"-1", b"1e999", b"9" * 50, b"null"]), 3)
    return content[:i] + rng.choice([b"\0", b"NaN", b"[]", b"{}", b'"x"', b"true", b"[" * 3000]) + content[j:]


@pytest.mark.parametrize("name", ["fit.json", "recipe.toml", "weights.safetensors"])
@pytest.mark.parametrize("agree", [False, True])
def test_mutated_files_are_refused_or_change_nothing(folder, saved, name, agree):
    """Sixty changes a file, with checksums left alone and with checksums that agree: an InputError, or a fit."""
    rng, original = random.Random(name), (saved[0] / name).read_bytes()
    accepted = 0
    for _ in range(60):
        for path in saved[0].iterdir():
            shutil.copy(path, folder / path.name)
        changed = mutated(original, rng)
        if agree and name == "fit.json":
            try:
                found = json.loads(changed)
                (folder / name).write_text(json.dumps(found))
                reseal(folder)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                (folder / name).write_bytes(changed)
        elif agree:
            reseal(folder, **{"toml" if name == "recipe.toml" else "tensors": changed})
        else:
            (folder / name).write_bytes(changed)
        try:
            fit = pq.load_fit(folder)
        except InputError:
            continue
        accepted += 1
        assert fit.sigma > 0
        if not agree:
            assert torch.equal(fit.posterior(Y[:10]).mean["D"], saved[1])
    if not agree:
        assert accepted <= 20  # changes that JSON or a file copied whole does not see
