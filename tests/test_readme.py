"""The README's example runs as it stands, and its picture and pages exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_library_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 22
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["completions"].shape == (16, 4, 1, 16, 16)
    upper = scope["images"][..., :8, :]
    assert (scope["completions"][..., :8, :] == upper).all()
    assert "bits per unseen pixel" in capsys.readouterr().out


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"
