"""The package's references: BibTeX entries by key, and keys by DOI."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@lru_cache
def entries() -> dict[str, str]:
    """BibTeX text of each reference by its key, from ``references.bib``."""
    packaged = PACKAGE / "references.bib"
    text = (packaged if packaged.is_file() else PACKAGE.parent / "references.bib").read_text(encoding="utf-8")
    found = re.findall(r"^@\w+\{([^,]+),.*?^\}", text, re.DOTALL | re.MULTILINE)
    parts = re.findall(r"^@\w+\{.*?^\}", text, re.DOTALL | re.MULTILINE)
    return dict(zip(found, parts, strict=True))


@lru_cache
def keys_by_doi() -> dict[str, str]:
    """Key of each reference that has a DOI, by the DOI in lower case."""
    found = {key: re.search(r"doi\s*=\s*\{([^}]+)\}", entry) for key, entry in entries().items()}
    return {match[1].lower(): key for key, match in found.items() if match}


def bibtex(keys: Iterable[str]) -> str:
    """Entries of these keys as a file's text, each once, in the order given."""
    return "\n\n".join(entries()[key] for key in dict.fromkeys(keys)) + "\n"
