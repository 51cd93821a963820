"""Write first_student.ipynb from the cells of first_student.py.

    python examples/make_notebook.py

A line `# %%` begins a code cell and `# %% [markdown]` a text cell, as in Jupytext and in editors.
"""

import json
import re
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("first_student.py")
NOTEBOOK = SCRIPT.with_suffix(".ipynb")


def text_of(script: str) -> str:
    """Write a script as a notebook without outputs (nbformat 4.5)."""
    cells = []
    parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)
    for number, (kind, text) in enumerate(zip(parts[1::2], parts[2::2], strict=True)):
        cell: dict[str, Any] = {"cell_type": "code", "execution_count": None, "outputs": []}
        if "[markdown]" in kind:
            cell = {"cell_type": "markdown"}
            # The first is the docstring of the script, the others are comments.
            text = text.replace('"""', "") if text.startswith('"""') else re.sub("^# ?", "", text, flags=re.MULTILINE)
        cells.append({**cell, "id": f"cell-{number}", "metadata": {}, "source": text.strip().splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(text_of(SCRIPT.read_text(encoding="utf-8")), encoding="utf-8")
