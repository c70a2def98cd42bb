"""What users read is in plain terms of the field: report pages, help, errors, notes and the README.

Source is read as text; nothing of the package is imported. Every string with a blank in it counts as prose, with its
f-string values left out, and docstrings only where they are the help of a command.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = sorted((REPOSITORY / "pyroqmri").rglob("*.py"))

# what is refused, and what stands in its place
REFUSED = {
    r"\b(?:told|tells?)\b": "computed, stated, distinguished",
    r"\b(?:taught|teach(?:es)?)\b": "trained",
    r"\b(?:speaks?|spoke)\b": "supports, tests",
    r"\banswers?\b": "returns, estimates",
    r"\b(?:said|says?)\b": "reports, states, shows",
    r"\bholds?\b": "covers, contains, fixes, is calibrated",
    r"\bdoubts?\b": "uncertainty, unreliable",
    r"\bknows? (?:of|that|its)\b": "includes",
    r"\b(?:one|a single) normal\b(?! prior)": "a single Gaussian",
    r"\bbent into\b": "warped to represent",
    r"\b(?:one|entry|entries|estimate|numbers?|row|column|volume|values) a (?:voxel|volume|measurement|class)\b": "per",
    r"(?<![\w.\]})/\\-])[+-]?\.\d+(?![\d%a-zA-Z])": "a zero before the decimal point",
}
# phrases in which a refused word is right
ALLOWED = ("GUI and teaching material",)
CLICK = {"command", "group"}


def refused(text: str) -> list[str]:
    """What is refused in a text, each with what to write in its place."""
    for phrase in ALLOWED:
        text = text.replace(phrase, "")
    found = [(m[0], instead) for pattern, instead in REFUSED.items() for m in re.finditer(pattern, text, re.IGNORECASE)]
    return [f"{word!r}: write {instead}" for word, instead in found]


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each string of a module that a user may read."""
    tree = ast.parse(source)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            statement = node.body[0]
            if isinstance(statement, ast.Expr) and not _is_command(node):
                skipped.add(id(statement.value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            if " " in text:
                yield node.lineno, text
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and " " in text and id(node) not in skipped:
            yield node.lineno, text


def _is_command(node: ast.AST) -> bool:
    calls = [d for d in getattr(node, "decorator_list", []) if isinstance(d, ast.Call)]
    return any(isinstance(call.func, ast.Attribute) and call.func.attr in CLICK for call in calls)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY / "pyroqmri")))
def test_what_the_package_prints_is_in_plain_terms(module):
    found = [(line, text, refused(text)) for line, text in prose(module.read_text())]
    assert [(line, why, text) for line, text, why in found if why] == []


def without_code(text: str) -> Iterator[tuple[int, str]]:
    """Lines of a page but for code, formulas and the targets of links."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.startswith("```")
        if not fenced and not line.startswith("    "):
            yield number, re.sub(r"`[^`]*`|\$[^$]*\$|\]\([^)]*\)", "", line)


# made from docstrings: signals.md
PAGES = sorted({*(REPOSITORY / "docs").rglob("*.md")} - {REPOSITORY / "docs" / "signals.md"})


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_pages_are_in_plain_terms(page):
    found = [(number, refused(line), line) for number, line in without_code(page.read_text())]
    assert [entry for entry in found if entry[1]] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_the_files_that_a_page_names_are_there(page):
    text = page.read_text()
    named = set(re.findall(r"`((?:[a-z_]\w*/)+\w+\.py)`", text))
    named |= {m.replace(".", "/") + ".py" for m in re.findall(r"python -m ((?:benchmarks|inference|docs)\.\w+)", text)}
    places = (REPOSITORY, REPOSITORY / "pyroqmri")
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


TEMPLATES = sorted((REPOSITORY / "pyroqmri" / "report").glob("*.jinja"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_the_templates_of_reports_are_in_plain_terms(template):
    text = re.sub(r"\{%.*?%\}|\{#.*?#\}|<[^>{]*>", " ", template.read_text(), flags=re.DOTALL)
    # what stands in quotes inside braces is printed, names are not
    text = re.sub(r"\{\{(.*?)\}\}", lambda m: " ".join(re.findall(r'"([^"]*)"', m[1])), text, flags=re.DOTALL)
    found = [(number, refused(line), line) for number, line in enumerate(text.splitlines(), 1)]
    assert [entry for entry in found if entry[1]] == []


@pytest.mark.parametrize("page", ["README.md", "models/README.md"])
def test_the_first_pages_are_in_plain_terms(page):
    lines = (REPOSITORY / page).read_text().splitlines()
    found = [(number, refused(line), line) for number, line in enumerate(lines, 1)]
    assert [entry for entry in found if entry[1]] == []


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("raise InputError('the voxels speak against it')", "speak"),
        ("raise InputError(f'{x} is told by {y}')", "told"),
        ("text = 'gains .5 nats'", ".5"),
        ("text = f'off by -.5 {unit}'", "-.5"),
        ("help = 'One normal has to be bent into several tissues.'", "One normal"),
        ("help = 'give one number a voxel'", "number a voxel"),
        ("@click.command()\ndef fit():\n    '''Say what was taught.'''\n", "taught"),
    ],
)
def test_a_word_that_is_no_field_term_is_seen(source, word):
    assert any(repr(word) in line for _, text in prose(source) for line in refused(text))


@pytest.mark.parametrize(
    "source",
    [
        "'''Said in the docstring of a module.'''",
        "def f():\n    '''Said in the docstring of a function.'''\n",
        "x = record['told']",
        "x = f'{told[0]:.1f} of {x:.2f} voxels'",
        "text = 'gains 0.5 nats per voxel, range 0.1..0.5, held-out volumes'",
    ],
)
def test_names_numbers_and_docstrings_pass(source):
    assert [line for _, text in prose(source) for line in refused(text)] == []
