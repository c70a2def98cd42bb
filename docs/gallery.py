"""Pictures of the executed notebooks for the gallery page: `python -m docs.gallery` takes them into docs/figures."""

import base64
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
# picture of the page: notebook, and which of its pictures, counted from 0
SHOWN = {
    "gallery_tensor": ("first_maps", 1),
    "gallery_quarter": ("first_maps", 2),
    "gallery_voxel": ("first_maps", 4),
    "gallery_priors": ("swap_priors", 0),
    "gallery_populations": ("swap_priors", 1),
    "gallery_own_signal": ("own_signal", 0),
    "gallery_t1": ("relaxation_and_perfusion", 0),
    "gallery_ivim": ("relaxation_and_perfusion", 2),
    "gallery_own_guide": ("own_loop", 1),
    "gallery_groups": ("group_result", 0),
    "gallery_coverage": ("is_it_calibrated", 0),
    "gallery_intervals": ("posterior_uncertainty", 3),
}


def pictures(notebook: str) -> list[bytes]:
    """The pictures of a notebook as PNG, in their order."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return [base64.b64decode("".join(data["image/png"])) for data in outputs if "image/png" in data]


def gallery() -> dict[Path, bytes]:
    """What the files of the gallery have to be."""
    return {FIGURES / f"{name}.png": pictures(notebook)[i] for name, (notebook, i) in SHOWN.items()}


if __name__ == "__main__":
    for path, content in gallery().items():
        path.write_bytes(content)
