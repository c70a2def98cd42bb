"""Recipes: names and numbers, and clear words about the wrong ones."""

import inspect
import os
import random
import tomllib

import pytest

from pyroqmri.denoising.autoencoders import build_autoencoder
from pyroqmri.errors import InputError
from pyroqmri.fitting.build import build_likelihood, build_pair, build_signal
from pyroqmri.fitting.schema import list_recipes, load_recipe, recipe_folder
from pyroqmri.measurements.preparation import Preparation
from pyroqmri.recipe import Recipe
from tests.helpers import shells

NAMES = [recipe.name for recipe in list_recipes()]
EVERY = pytest.mark.parametrize("name", NAMES)
MAIN = {"vae_unig", "hierarchical", "hierarchical_mixture", "least_squares", "maximum_likelihood"}


def test_the_shipped_recipes_are_found():
    assert set(NAMES) >= MAIN
    assert sorted(NAMES) == NAMES
    assert {p.stem for p in recipe_folder().glob("*.toml")} == set(NAMES)


@EVERY
def test_a_shipped_recipe_goes_to_toml_and_back(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.doc
    (tmp_path / "copy.toml").write_text(recipe.to_toml())
    again = load_recipe(tmp_path / "copy.toml")
    assert again == recipe
    assert tomllib.loads(recipe.to_toml())["name"] == name


@EVERY
def test_a_shipped_recipe_builds_what_it_names(name):
    recipe, acq = load_recipe(name), shells(2, 6, 1.0, 2.0)
    if recipe.estimator == "denoiser":
        assert build_autoencoder(recipe, 14).n_latents == 7
        return
    preparation = Preparation("measured", 1.0, True, True)
    likelihood = build_likelihood(recipe, acq, preparation)
    assert likelihood.n_average.tolist() == [6.0, 6.0]
    if recipe.estimator == "voxel_model":
        signal = build_signal("msdki", acq, preparation, {}, {})
        model, guide = build_pair(recipe, signal, likelihood, 0.05)
        assert model.likelihood is likelihood
        assert guide.model is model
        assert model.n_latents == 2


def test_settings_change_entries_and_nothing_else():
    recipe = load_recipe("hierarchical")
    changed = load_recipe("hierarchical", {"training.steps": 7, "likelihood.learn": True, "data.average": "volumes"})
    assert changed.tables["training"]["steps"] == 7
    assert changed.tables["likelihood"] == {"kind": "rician", "learn": True}
    assert changed.tables["data"] == {"average": "volumes"}
    assert {k: v for k, v in changed.tables["training"].items() if k != "steps"} == {
        k: v for k, v in recipe.tables["training"].items() if k != "steps"
    }
    assert recipe == load_recipe("hierarchical")
    assert load_recipe(recipe, {}) == recipe


def test_a_kind_can_be_swapped():
    swapped = load_recipe("hierarchical", {"guide.kind": "free", "prior.kind": "mixture", "prior.classes": 2})
    assert swapped.tables["guide"] == {"kind": "free"}
    assert swapped.tables["prior"]["classes"] == 2
    with pytest.raises(InputError, match=r"unknown key in .guide. 'width'"):
        load_recipe("hierarchical", {"guide.kind": "free", "guide.width": 3})
    recipe = load_recipe("hierarchical", {"likelihood.kind": "gaussian"})
    assert recipe.kind("likelihood") == "gaussian"
    assert "kind" not in recipe.table("likelihood")
    assert recipe.table("data") == {}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 7}, "'steps' must read TABLE.KEY"),
        ({"training.": 7}, "must read TABLE.KEY"),
        ({"training.stps": 7}, r"unknown key in \[training\] 'stps'; did you mean 'steps'"),
        ({"trainin.steps": 7}, "unknown table 'trainin'; did you mean 'training'"),
        ({"search.steps": 7}, "unknown table 'search'"),
        ({"guide.wdth": 7}, "did you mean 'width'"),
        ({"guide.kind": "encodr"}, "unknown kind of guide 'encodr'; did you mean 'encoder'"),
        ({"prior.kind": "zzz"}, "unknown kind of prior 'zzz'; there are"),
        ({"decoder.width": 8}, r"unknown key in \[decoder\] 'width'"),
        ({"guide.model": 8}, r"unknown key in \[guide\] 'model'"),
        ({"training.steps": 1.5}, r"training.steps must be a whole number, got 1.5"),
        ({"training.steps": True}, "must be a whole number, got True"),
        ({"training.steps": "many"}, "must be a whole number, got 'many'"),
        ({"training.lr": "slow"}, "training.lr must be a number, got 'slow'"),
        ({"likelihood.learn": 1}, "likelihood.learn must be true or false, got 1"),
        ({"data.average": 3}, "data.average must be a word, got 3"),
    ],
)
def test_a_wrong_setting_is_said_with_the_nearest(settings, said):
    with pytest.raises(InputError, match=said):
        load_recipe("hierarchical", settings)


@pytest.mark.parametrize("settings", [{"guide.kind": 3}, {"guide.kind": ["encoder"]}, {"prior.kind": None}])
def test_a_kind_that_is_no_word_is_said(settings):
    with pytest.raises(InputError, match="kind"):
        load_recipe("hierarchical", settings)


def test_whole_numbers_serve_where_numbers_are_wanted():
    assert load_recipe("hierarchical", {"training.lr": 1}).tables["training"]["lr"] == 1


def test_a_name_that_is_none_is_said():
    with pytest.raises(InputError, match=r"there is no recipe 'hierarchial'; there are .*hierarchical"):
        load_recipe("hierarchial")


def a_file(tmp_path, change=lambda text: text):
    path = tmp_path / "mine.toml"
    path.write_text(change(load_recipe("hierarchical").to_toml()))
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t + "\n[extra]\na = 1\n", "unknown table 'extra'"),
        (lambda t: "colour = 1\n" + t, "unknown entry 'colour' outside a table"),
        (lambda t: t.replace('estimator = "voxel_model"', 'estimator = "voxelmodel"'), "did you mean 'voxel_model'"),
        (lambda t: t.replace('estimator = "voxel_model"', ""), "unknown estimator ''"),
        (lambda t: t.replace('kind = "structured"\n', ""), "kind of guide"),
        (lambda t: t.replace("[prior]", "[prior"), "cannot be read"),
        (lambda t: t + "\n[training]\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_said(change, said, tmp_path):
    with pytest.raises(InputError, match=said):
        load_recipe(a_file(tmp_path, change))


def test_a_table_that_is_left_out_is_said(tmp_path):
    text = '[likelihood]\nkind = "rician"\n'
    (tmp_path / "bare.toml").write_text('name = "bare"\ndoc = ""\nestimator = "voxel_model"\n' + text)
    with pytest.raises(InputError, match=r"table \[prior\] needs a kind, one of .*hierarchical"):
        load_recipe(tmp_path / "bare.toml")
    (tmp_path / "point.toml").write_text('name = "p"\ndoc = ""\nestimator = "point"\n' + text)
    assert load_recipe(tmp_path / "point.toml").table("search") == {}


def test_a_file_that_is_not_there_or_no_text_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(tmp_path / "bytes.toml")


def test_a_file_may_override_and_be_overridden(tmp_path):
    path = a_file(tmp_path, lambda t: t.replace("steps = 300", "steps = 11"))
    assert load_recipe(path).tables["training"]["steps"] == 11
    assert load_recipe(path, {"training.steps": 12}).tables["training"]["steps"] == 12


def test_a_recipe_is_names_and_numbers_only():
    for recipe in list_recipes():
        for table in recipe.tables.values():
            assert all(isinstance(v, str | int | float | bool) for v in table.values()), recipe.name
    assert list(inspect.signature(Recipe).parameters) == ["name", "doc", "estimator", "tables", "objects"]


SEARCH = 'estimator = "point"\n[likelihood]\nkind = "gaussian"\n[search]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("estimator = []", r"estimator must be plain text, got \[\]"),
        ("estimator = 3", "estimator must be plain text, got 3"),
        ('name = "a\\u0000b"\nestimator = "point"', "name must be plain text"),
        ("prior = 3", "unknown entry 'prior' outside a table"),
        ("[[prior]]\nkind = 1", "unknown entry 'prior' outside a table"),
        ('estimator = "point"\n[likelihood]\nkind = []', r"unknown kind of likelihood \[\]"),
        ('estimator = "point"\n[likelihood.kind]\na = 1', "unknown kind of likelihood"),
        (
            'estimator = "point"\n[likelihood]\nkind = "gaussian"\n[search]\nsteps = ' + "9" * 400,
            "must be a whole number",
        ),
        (
            'estimator = "point"\n[likelihood]\nkind = "gaussian"\n[search]\nsteps = -3',
            "search.steps must be 0 or more",
        ),
        ('estimator = "point"\n[likelihood]\nkind = "gaussian"\n[search.steps]\na = 1', "must be a whole number"),
        ("x = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("x = " + "9" * 5000, "cannot be read"),
        ("x = 0x" + "f" * 5000, "unknown entry 'x' outside a table"),
    ],
)
def test_a_recipe_file_that_is_none_is_refused(text, said, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        load_recipe(path)


def test_only_a_regular_file_is_a_recipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "device.toml").symlink_to("/dev/zero")
    (tmp_path / "folder.toml").mkdir()
    for kind in ("pipe", "device", "folder"):
        with pytest.raises(InputError, match=f"is a {kind}; give a regular file"):
            load_recipe(tmp_path / f"{kind}.toml")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"training.lr": float("nan")}, "training.lr must be a finite number, got nan"),
        ({"training.lr": float("inf")}, "training.lr must be a finite number"),
        ({"training.lr": 10**400}, "training.lr must be a finite number"),
        ({"training.kl_weight": -1.0}, "training.kl_weight must be 0 or more"),
        ({"guide.width": 10**9}, "guide.width must be at most 8192"),
        ({"guide.width": 2**80}, "guide.width must be a whole number"),
        ({"posterior.draws": 10**9}, "posterior.draws must be at most 1000000"),
        ({"range.D": 3}, r"range.D must be \[lower, upper\], two finite numbers, got 3"),
        ({"range.D": ["a", "b"]}, "two finite numbers"),
        ({"given.water": {"D": [3.0, float("nan")]}}, r"given.water.D must be \[mean, sd\]"),
        ({"given.water": 3}, "given.water must be"),
    ],
)
def test_values_that_no_setting_can_have_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        load_recipe("hierarchical", settings)


def test_weights_of_a_network_are_zero_or_more():
    for value in (-1.0, "x", float("inf"), True):
        with pytest.raises(InputError, match=r"weights\.D must be a number of zero or more"):
            load_recipe("supervised_gt", {"weights.D": value})


def test_a_recipe_whose_tables_are_none_is_refused():
    for tables in ({"prior": 3}, {"prior": {3: "x"}}):
        with pytest.raises(InputError, match="must be a table of names"):
            load_recipe(Recipe("own", "", "voxel_model", tables))


def test_mutated_recipes_are_refused_or_recipes(tmp_path):
    """Four hundred changes of the shipped files: an InputError, or a recipe that reads back as itself."""
    rng = random.Random(7)
    files = sorted(recipe_folder().glob("*.toml"))
    words = ["[]", "{}", "-1", "1e999", "nan", '"x"', "true", "9" * 60, "\0", "[a.b]", "kind", "=", "\n"]
    for _ in range(400):
        text = rng.choice(files).read_text()
        i = rng.randrange(len(text))
        j = i + rng.randrange(12)
        (tmp_path / "own.toml").write_text(text[:i] + rng.choice([*words, ""]) + text[j:])
        try:
            found = load_recipe(tmp_path / "own.toml")
        except InputError:
            continue
        assert Recipe.of(tomllib.loads(found.to_toml()), "here") == found
