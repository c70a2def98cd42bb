"""`pyroqmri compare`."""

import shlex
from collections.abc import Sequence
from typing import Any

import click

from pyroqmri.cli.common import (
    coils_option,
    debug_option,
    example,
    model_options,
    number_or_word,
    run_options,
    say,
    say_loading,
    seed_option,
    sigma_option,
    toml_value,
)
from pyroqmri.cli.files import scan_files, scan_options

_OWN = ("signal", "likelihood", "s0")
_PREFIX = {"fix": "fixed", "tie": "tied"}


class RecipeWords(click.ParamType):
    """``[LABEL=]NAME [TABLE.KEY=VALUE] [fix.NAME=VALUE] [tie.NAME=OTHER] [signal=S] [likelihood=L] [s0=X]``."""

    name = "recipe"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, dict[str, Any]]:
        """The recipe's label and what is said of it."""
        if isinstance(value, tuple):
            return value
        try:
            first, *rest = shlex.split(value)
        except ValueError as error:
            self.fail(f"{value!r} does not read as RECIPE [KEY=VALUE ...]: {error}", param, ctx)
        label, equals, recipe = first.partition("=")
        said: dict[str, Any] = {"recipe": recipe if equals else first, "settings": {}, "fixed": {}, "tied": {}}
        for word in rest:
            key, equals_here, text = word.partition("=")
            if not equals_here or not key or not text:
                self.fail(f"{word!r} in --recipe {value!r} must read KEY=VALUE", param, ctx)
            table, dot, entry = key.partition(".")
            if key in _OWN:
                said[key] = number_or_word(text)
            elif dot and table in _PREFIX:
                said[_PREFIX[table]][entry] = toml_value(text)
            else:
                said["settings"][key] = toml_value(text)
        return label if equals else value, said


def with_signals(recipes: Sequence[tuple[str, dict[str, Any]]], signals: Sequence[str]) -> list[tuple[str, dict]]:
    """Every recipe with every signal, called by what tells them apart; a recipe's own signal goes before."""
    if len(signals) == 1:
        return list(recipes)
    found = []
    for label, said in recipes:
        if "signal" in said:
            found.append((label, said))
            continue
        found += [(s if len(recipes) == 1 else f"{s} {label}", said | {"signal": s}) for s in signals]
    return found


def shell_option(ctx: Any, param: Any, value: str) -> str | float | None:
    """``highest``, ``none``, or a b-value in s/mm2 or ms/um2 as one in ms/um2."""
    if value in ("highest", "none"):
        return None if value == "none" else value
    try:
        b = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither highest, none nor a b-value") from None
    return b / 1000 if b > 100 else b


@click.command(
    **example("pyroqmri compare sub-01_dwi.nii.gz --signal msdki --recipe hierarchical --recipe vae_unig --out out/cmp")
)
@click.argument("image")
@click.option("--signal", "signals", metavar="S", required=True, multiple=True,
              help="Physics; see `pyroqmri list signals`. Several: each with every recipe.")  # fmt: skip
@click.option("--recipe", "recipes", type=RecipeWords(), multiple=True, required=True, metavar="R",
              help="Estimator, once for each to compare: a name or a .toml, with changes in the same quotes such as "
              "'three=hierarchical_mixture prior.classes=3 likelihood=gaussian'.")  # fmt: skip
@scan_options
@coils_option("N")
@model_options
@sigma_option("X|FILE|estimate|field|learn")
@click.option("--folds", type=click.IntRange(0), default=5, show_default=True, metavar="N",
              help="Parts in which volumes are left out; each trains every recipe once more, and 0 none.")  # fmt: skip
@click.option("--shell", metavar="highest|B|none", default="highest", show_default=True, callback=shell_option,
              help="Shell that is left out.")  # fmt: skip
@click.option("--voxels", type=click.IntRange(10), default=4000, show_default=True, metavar="N",
              help="Voxels to score by measurements left out; the map of winners is of all.")  # fmt: skip
@seed_option
@click.option("--resume", is_flag=True, help="Go on from where the same command was interrupted.")
@run_options
@debug_option
def compare(
    image: str, signals: tuple[str, ...], recipes: Any, out: str, sigma: str | float, s0: str | float, folds: int,
    shell: Any, voxels: int, likelihood: str | None, coils: float | None, settings: Any, fix: Any, tie: Any, seed: int,
    device: str, resume: bool, overwrite: bool, quiet: bool,
) -> int:  # fmt: skip
    """Rank recipes, or signals, on IMAGE by how well they predict, and map where each wins.

    Scores: leaving out a measurement (PSIS-LOO), WAIC, evidence, held-out volumes and a held-out
    shell. Exit code 1: done, and a score is unreliable.
    """
    again = next((name for name in signals if signals.count(name) > 1), None)
    if again is not None:
        raise click.UsageError(f"--signal {again} is given {signals.count(again)} times; give each signal once")
    recipes = with_signals(recipes, signals)
    labels = [label for label, _ in recipes]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise click.UsageError(f"two recipes are called {twice!r}; write LABEL={twice}")
    say_loading(quiet)
    from pyroqmri.commands.compare import Choice, compare_image
    from pyroqmri.comparison import Plan

    folder, found = compare_image(
        scan_files(image), signal=signals[0], recipes={label: Choice(**said) for label, said in recipes}, out=out,
        likelihood=likelihood, coils=coils, sigma=sigma, s0=s0,
        settings=dict(settings), fixed=dict(fix), tied=dict(tie),
        plan=Plan(folds, shell, voxels, seed), device=device,
        resume=resume, overwrite=overwrite, progress=not quiet,
    )  # fmt: skip
    say(found.notes, [*found.warnings, *found.unreliable], quiet)
    for sentence in found.verdict():
        click.echo(sentence)
    click.echo(folder / "report.html")
    return 1 if found.unreliable else 0
