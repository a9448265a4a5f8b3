"""Run a notebook from top to bottom without Jupyter, in one namespace.

    python notebooks/run.py notebooks/gallery.ipynb                      # keeps the outputs in the file
    python notebooks/run.py notebooks/gallery.ipynb FOLDER edges labels  # pictures of named cells only

The second form writes FOLDER/NAME.png for each named cell, a cell's name being its id, and leaves the
notebook alone. One thread is used, so that one machine always gives the same outputs.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["picture_of", "run_cells"]

Output = dict[str, Any]


def run_cells(notebook: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[Output]]]:
    """Run the code cells one after another.

    Args:
        notebook: As nbformat 4 writes it.

    Yields:
        Each code cell and its outputs: what it printed, and the value of its last line where that is
        an expression; as a picture if the value offers one as Jupyter asks for it.

    Raises:
        Exception: Whatever a cell raises; a note names the cell.
    """
    scope: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        source, printed = "".join(cell["source"]), io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                value = _run(source, cell["id"], scope)
        except Exception as error:
            error.add_note(f"in cell {cell['id']!r}:\n{source}")
            raise
        outputs: list[Output] = []
        if printed.getvalue():
            lines = printed.getvalue().splitlines(keepends=True)
            outputs.append({"output_type": "stream", "name": "stdout", "text": lines})
        if value is not None:
            outputs.append(_display(value))
        yield cell, outputs


def picture_of(outputs: list[Output]) -> bytes | None:
    """PNG among the outputs of a cell, None where there is none."""
    found = (output.get("data", {}).get("image/png") for output in outputs)
    return next((base64.b64decode(data) for data in found if data), None)


def _run(source: str, name: str, scope: dict[str, Any]) -> Any:
    """Run the lines of a cell; the value of the last one where it is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), scope)
    return eval(compile(ast.Expression(last.value), name, "eval"), scope) if last else None


def _display(value: Any) -> Output:
    data: dict[str, Any] = {"text/plain": [repr(value)]}
    if hasattr(value, "_repr_png_"):
        data["image/png"] = base64.b64encode(value._repr_png_()).decode()
    return {"output_type": "display_data", "data": data, "metadata": {}}


def main() -> None:
    """Run the notebook that the command line names."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", help="for pictures")
    parser.add_argument("names", nargs="*", help="cells whose pictures are written")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    notebook = json.loads(arguments.notebook.read_text())
    for count, (cell, outputs) in enumerate(run_cells(notebook), start=1):
        print(f"{count}: {cell['id']}", flush=True)
        cell["outputs"], cell["execution_count"] = outputs, count
        picture = picture_of(outputs)
        if picture and cell["id"] in arguments.names:
            (arguments.folder / f"{cell['id']}.png").write_bytes(picture)
    if arguments.folder is None:
        arguments.notebook.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
