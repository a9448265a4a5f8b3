"""Runs commands of Kedro in forks of one process that has imported what takes seconds to import.

Reads requests, a JSON object a line: ``arguments``, ``folder``, ``environment``. Answers each with the
command's exit status, a line as well; what the command printed is in ``printed.txt`` in the folder.
The code of the project itself is imported by the fork, from the environment's ``PYTHONPATH``.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys

SLOW_IMPORTS = (
    *("torch", "torch._dynamo", "torchvision", "torch_fidelity", "mlflow", "kedro.framework.cli"),
    *("kedro_mlflow.framework.hooks", "kedro_datasets", "great_expectations", "pandas", "pyarrow"),
    *("scipy.stats", "sklearn.datasets", "sklearn.linear_model", "matplotlib.pyplot", "PIL.Image"),
)


def run(request: dict) -> None:
    """Become the command that was asked for."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    written = os.open("printed.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate((nothing, written, written)):
        os.dup2(descriptor, number)
    sys.path.insert(0, request["environment"]["PYTHONPATH"])
    sys.argv = ["kedro", *request["arguments"]]
    runpy.run_module("kedro", run_name="__main__", alter_sys=True)


def serve() -> None:
    """Answer until the input ends; in a fork, run the command that was asked for."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what imports print is no answer
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))  # leaves by SystemExit
            raise SystemExit
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers)


if __name__ == "__main__":
    serve()
