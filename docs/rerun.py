"""Execute notebooks and store them as they ran, pictures in few colours: `python -m docs.rerun [NAME ...]`."""

import base64
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from docs.gallery import ROOT, gallery

COLOURS = 256


def stored(path: Path) -> str:
    """The notebook after all of its cells have run, as it is kept.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        When a cell fails; the file stays as it was.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which differ at every run
        if "outputs" in cell:  # warnings of this machine's packages are none of the story
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            _shrink(output.get("data", {}))
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _shrink(data: dict[str, Any]) -> None:
    from PIL import Image

    if "image/png" not in data:
        return
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
    content = io.BytesIO()
    # this method keeps colour bars within 4 % and takes a third of the bytes
    palette = picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette.save(content, "PNG", optimize=True)
    data["image/png"] = base64.b64encode(content.getvalue()).decode()


if __name__ == "__main__":
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if len(sys.argv) == 1 or notebook.stem in sys.argv[1:]:
            notebook.write_text(stored(notebook))
    for figure, content in gallery().items():
        figure.write_bytes(content)
