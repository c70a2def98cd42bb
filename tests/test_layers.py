"""Where things may live, and what they may import.

The package is read as text, module by module; nothing of it is imported. A
module that is new has to be placed in ``LAYERS`` before this passes. Each rule
is a function of source text, and the last tests see each of them fail.
"""

import ast
import textwrap
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "pyroqmri"

# from the bottom up; a unit is a module or a folder of the package. Within one
# layer imports are free as long as they do not run in a circle.
LAYERS = (
    ("parameter", "acquisition", "errors", "files", "progress", "recipe", "whole_files"),
    ("signals", "datasets"),
    ("measurements", "io", "simulate", "distributions", "markov"),
    ("likelihoods", "priors", "decoders"),
    ("laplace",),
    ("voxel_model", "protocol_checks", "misfit"),
    ("guides",),
    ("posterior", "svi"),
    ("diagnostics", "voxelwise"),
    ("maps", "networks", "denoising"),
    ("fitting",),
    ("calibration", "comparison", "planning"),
    ("commands", "report", "cohort"),
    ("cli", "__main__", "nipype"),
)
LAYER = {unit: i for i, layer in enumerate(LAYERS) for unit in layer}
SIBLINGS = {"likelihoods", "priors", "decoders"}  # any one goes with any other, so none may know another

# unit, function: the unit above it that it may import; conveniences that would need their own module otherwise
UPWARD = {
    ("acquisition", "from_files"): "io",
    ("posterior", "to_arviz"): "diagnostics",
}

OUTSIDE = {"inference", "benchmarks", "tests", "notebooks", "models", "docs"}
WITHOUT_PYRO = {*LAYERS[0], *LAYERS[1]}
LATE = {"matplotlib", "dipy", "arviz"}  # take long to import
LATE_IN_CLI = LATE | {"torch", "pyro", "nibabel"}  # `--help` answers at once
OWN_STORE_NAMES = {
    "pyroqmri.fitting.pyro_pair"
}  # puts parameters into the store for the user, under names of their own
IMPORTS_BY_NAME = {"pyroqmri", "pyroqmri.fitting.parts"}  # what a user's recipe names
STORE = {"param", "module", "clear_param_store", "get_param_store"}
MAX_FILE = 300
MAX_FUNCTION = 40


class Import(NamedTuple):
    """One imported module, ``functions`` outermost first."""

    module: str
    line: int
    functions: tuple[str, ...]
    typing_only: bool


class _Imports(ast.NodeVisitor):
    def __init__(self, module: str, is_package: bool) -> None:
        self.found: list[Import] = []
        self._base = module.split(".") if is_package else module.split(".")[:-1]
        self._functions: tuple[str, ...] = ()
        self._typing_only = False

    def _add(self, module: str, node: ast.AST) -> None:
        self.found.append(Import(module, node.lineno, self._functions, self._typing_only))

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        outer = self._functions
        self._functions = (*outer, node.name)
        self.generic_visit(node)
        self._functions = outer

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        outer = self._typing_only
        self._typing_only = outer or ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in node.body:
            self.visit(child)
        self._typing_only = outer
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self._base[: len(self._base) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        if module == "pyroqmri":  # a name taken from the package itself is mostly a module of it
            for alias in node.names:
                self._add(f"pyroqmri.{alias.name}", node)
        else:
            self._add(module, node)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"} and node.args:
            name = node.args[0]
            self._add(name.value if isinstance(name, ast.Constant) else "an unreadable import", node)
        self.generic_visit(node)


def imports(source: str, module: str, is_package: bool = False) -> list[Import]:
    """Every import of a module's source, inside functions as well."""
    visitor = _Imports(module, is_package)
    visitor.visit(ast.parse(source))
    return visitor.found


def unit_of(module: str) -> str:
    """``pyroqmri.signals.msdki`` -> ``signals``; the package itself -> ``""``."""
    return module.partition(".")[2].partition(".")[0]


def targets(source: str, module: str, is_package: bool) -> Iterator[tuple[Import, str]]:
    """The imports of a module that name another unit of the package."""
    for found in imports(source, module, is_package):
        if found.module == "pyroqmri.__version__":
            continue
        if found.module.split(".")[0] == "pyroqmri" and unit_of(found.module) != unit_of(module):
            yield found, unit_of(found.module)


def layer_faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of a module that do not go down."""
    unit, faults = unit_of(module), []
    if unit not in LAYER:
        return [f"{module} has no place in LAYERS of tests/test_layers.py: give it one"]
    for found, target in targets(source, module, is_package):
        where = f"{module}:{found.line} imports {found.module}"
        if target not in LAYER:
            faults.append(f"{where}, which has no place in LAYERS: import from the module that defines the name")
        elif unit in SIBLINGS and target in SIBLINGS:
            faults.append(f"{where}: likelihoods, priors and decoders never import one another")
        elif LAYER[target] > LAYER[unit] and not any(UPWARD.get((unit, f)) == target for f in found.functions):
            faults.append(f"{where}, which is above it")
    return faults


def foreign_faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports from outside the package that its place does not allow."""
    unit, faults = unit_of(module), []
    for found in imports(source, module, is_package):
        top, where = found.module.split(".")[0], f"{module}:{found.line} imports {found.module}"
        early = not found.functions and not found.typing_only
        if top in OUTSIDE:
            faults.append(f"{where}: the package imports nothing that is built on it")
        if top == "an unreadable import" and module not in IMPORTS_BY_NAME:
            faults.append(f"{where}: write the import out, so that the layers can be checked")
        if top == "pyro" and unit in WITHOUT_PYRO:
            faults.append(f"{where}: physics is torch only")
        if early and top in (LATE_IN_CLI if unit in {"cli", "__main__"} else LATE):
            faults.append(f"{where} at the top: import it inside the function that needs it")
    return faults


def store_faults(source: str, module: str) -> list[str]:
    """Uses of Pyro's global parameter store."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        used: set[str] = set()
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pyro":
            used = {node.attr}
        elif isinstance(node, ast.Attribute | ast.Name):  # under whatever name Pyro was imported
            used = {getattr(node, "attr", getattr(node, "id", ""))} & {"clear_param_store", "get_param_store"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pyro":
            used = {alias.name for alias in node.names} if node.module in {"pyro", "pyro.primitives"} else set()
        faults += [f"{module}:{node.lineno} touches Pyro's parameter store: {n}" for n in sorted(used & STORE)]
    return faults


def _docstring_lines(node: ast.AST) -> int:
    inner = [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    strings = [n.body[0] for n in inner if ast.get_docstring(n) is not None]
    return sum(s.end_lineno - s.lineno + 1 for s in strings)


def size_faults(source: str, module: str) -> list[str]:
    """Files over 300 lines; functions whose body is over 40.

    Signatures and docstrings are not counted, so that nobody saves on names
    and explanations; comments, blank lines and functions inside are.
    """
    faults = []
    if (n := len(source.splitlines())) > MAX_FILE:
        faults.append(f"{module} has {n} lines, more than {MAX_FILE}: split it")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            n = node.end_lineno - node.body[0].lineno + 1 - _docstring_lines(node)
            if n > MAX_FUNCTION:
                faults.append(f"{module}:{node.lineno} {node.name} has {n} lines, more than {MAX_FUNCTION}: split it")
    return faults


def _modules() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = _modules()
BELOW = {name: path for name, path in MODULES.items() if name != "pyroqmri"}


def _read(name: str) -> tuple[str, str, bool]:
    return MODULES[name].read_text(encoding="utf-8"), name, MODULES[name].name == "__init__.py"


def test_the_package_is_found():
    assert {"pyroqmri", "pyroqmri.parameter", "pyroqmri.signals.base"} <= set(MODULES)


@pytest.mark.parametrize("name", BELOW)
def test_imports_go_down(name):
    assert layer_faults(*_read(name)) == []


@pytest.mark.parametrize("name", MODULES)
def test_foreign_imports_are_in_place(name):
    assert foreign_faults(*_read(name)) == []


def test_the_package_itself_imports_none_of_its_modules():
    assert [found for found, _ in targets(*_read("pyroqmri")) if not found.typing_only] == []


@pytest.mark.parametrize("name", sorted({*MODULES} - OWN_STORE_NAMES))
def test_the_parameter_store_is_left_alone(name):
    assert store_faults(*_read(name)[:2]) == []


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_stay_small(name):
    assert size_faults(*_read(name)[:2]) == []


def test_units_do_not_import_in_a_circle():
    graph: dict[str, set[str]] = {}
    for name in BELOW:
        for found, target in targets(*_read(name)):
            if not found.typing_only and not any((unit_of(name), f) in UPWARD for f in found.functions):
                graph.setdefault(unit_of(name), set()).add(target)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these import one another: {' <- '.join(error.args[1])}")


def test_each_unit_has_one_place():
    assert len(LAYER) == sum(len(layer) for layer in LAYERS)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyroqmri.signals.msdki", "from pyroqmri.priors import Prior"),
        ("pyroqmri.signals.msdki", "import pyroqmri.svi"),
        ("pyroqmri.signals.msdki", "from pyroqmri import svi"),
        ("pyroqmri.signals.msdki", "from ..svi import fit"),
        ("pyroqmri.signals.msdki", "from .. import svi"),
        ("pyroqmri.signals.msdki", "def f():\n    import pyroqmri.svi"),
        ("pyroqmri.signals.msdki", "import importlib\nimportlib.import_module('pyroqmri.svi')"),
        ("pyroqmri.priors.base", "from pyroqmri.decoders import Decoder"),
        ("pyroqmri.likelihoods.rician", "def f():\n    from pyroqmri.priors import Prior"),
        ("pyroqmri.acquisition", "from pyroqmri.io import read_gradients"),
        ("pyroqmri.acquisition", "def to(self):\n    from pyroqmri.io import read_gradients"),
        ("pyroqmri.posterior.posterior", "def to_arviz(self):\n    from pyroqmri.cli import main"),
        ("pyroqmri.newcomer", ""),
        ("pyroqmri.models.vae", ""),
        ("pyroqmri.svi", "from pyroqmri.newcomer import thing"),
        ("pyroqmri.svi", "from pyroqmri import fit"),
        ("pyroqmri.svi", "import pyroqmri"),
    ],
)
def test_an_import_that_does_not_go_down_is_seen(module, source):
    assert len(layer_faults(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyroqmri.priors.base", "from pyroqmri.signals import BoundSignal\nfrom pyroqmri.priors import other"),
        ("pyroqmri.acquisition", "def from_files(self):\n    from pyroqmri.io import read_gradients"),
        (
            "pyroqmri.posterior.posterior",
            "def to_arviz(self):\n    from pyroqmri.diagnostics import to_arviz",
        ),
        ("pyroqmri.maps", "from pyroqmri import __version__"),
        ("pyroqmri.maps", "from pyroqmri.io import ImageRef\nimport torch"),
        ("pyroqmri.priors.base", "from .hierarchical import Hierarchical\nfrom ..signals import BoundSignal"),
    ],
)
def test_an_import_that_goes_down_is_let_through(module, source):
    assert layer_faults(source, module) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyroqmri.svi", "import benchmarks.svi_step"),
        ("pyroqmri.svi", "from tests.conftest import REPOSITORY"),
        ("pyroqmri.svi", "def f():\n    import inference"),
        ("pyroqmri.svi", "__import__(name)"),
        ("pyroqmri.signals.msdki", "def f():\n    import pyro.distributions"),
        ("pyroqmri.parameter", "from pyro import sample"),
        ("pyroqmri.measurements.noise", "import dipy.reconst"),
        ("pyroqmri.report.figures", "from matplotlib.figure import Figure"),
        ("pyroqmri.cli", "import torch"),
    ],
)
def test_a_foreign_import_out_of_place_is_seen(module, source):
    assert len(foreign_faults(source, module)) == 1


def test_late_and_type_only_imports_are_let_through():
    late = "def f():\n    import matplotlib\n"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from matplotlib.figure import Figure\n"
    assert foreign_faults(late + typed, "pyroqmri.report.figures") == []
    assert len(foreign_faults(typed + "else:\n    import arviz\n", "pyroqmri.report.figures")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "pyro.param('a', x)",
        "pyro.module('a', m)",
        "p.clear_param_store()",
        "from pyro import param",
        "get_param_store()",
    ],
)
def test_a_use_of_the_parameter_store_is_seen(source):
    assert len(store_faults(source, "pyroqmri.svi")) == 1


def test_what_only_looks_like_the_parameter_store_is_let_through():
    source = (
        "from pyro.nn.module import to_pyro_module_\nself.param(1)\npyro.nn.module\npyro.sample('a', d)\nmodule = 1"
    )
    assert store_faults(source, "pyroqmri.svi") == []


def test_what_is_too_long_is_seen():
    body = "\n".join(["    x = 1"] * MAX_FUNCTION)
    docstring = '    """One.\n\n    Two.\n    """\n'
    assert size_faults(f"def f():\n{docstring}{body}\n", "m") == []
    assert len(size_faults(f"def f():\n{docstring}{body}\n    x = 2\n", "m")) == 1
    assert len(size_faults("class A:\n" + textwrap.indent(f"def f():\n{body}\n    x = 2\n", "    "), "m")) == 1
    assert size_faults("x = 1\n" * MAX_FILE, "m") == []
    assert len(size_faults("x = 1\n" * (MAX_FILE + 1), "m")) == 1
