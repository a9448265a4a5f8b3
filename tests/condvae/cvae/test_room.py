"""Importing the room does nothing but define names, and each of its modules stands alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "src"

SCRIPT = """
import importlib, pkgutil, random, sys
import numpy, torch

state = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
count = 0
for room in ("condvae.cvae", "condvae.priors", "condvae.ground"):
    names = [room]
    if hasattr(importlib.import_module(room), "__path__"):
        package = sys.modules[room]
        names += [m.name for m in pkgutil.walk_packages(package.__path__, room + ".")]
    for name in names:
        # Alone: whatever else of the library was imported is forgotten.
        for other in [m for m in sys.modules if m.partition(".")[0] == "condvae"]:
            del sys.modules[other]
        module = importlib.import_module(name)
        missing = [n for n in getattr(module, "__all__", ()) if not hasattr(module, n)]
        assert not missing, (name, missing)
        count += 1
assert torch.equal(state[0], torch.get_rng_state())
assert state[1] == random.getstate()
assert state[2] == numpy.random.get_state()[1].tolist()
sys.stderr.write(str(count))
"""


def test_imports_have_no_effects(tmp_path):
    done = subprocess.run(
        [sys.executable, "-B", "-c", SCRIPT],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SOURCE), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert int(done.stderr) >= 20
    assert list(tmp_path.iterdir()) == []
