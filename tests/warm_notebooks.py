"""Runs notebooks as ``nbdev_test`` does, each in a child of one process that has imported what most of them need.

Imports are two thirds of the time of a notebook that tests in a second. The parent imports libraries only: every
notebook imports the package itself, and starts no thread before it forks.

``python warm_notebooks.py`` reads from standard input a notebook's name and a file for what it prints, as JSON, and
answers with its exit status.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "h5py", "matplotlib.pyplot", "matplotlib_inline.backend_inline", "nbdev.test", "numpy", "pandas", "scipy.ndimage",
    "scipy.signal", "skimage.metrics", "torch",
)  # fmt: skip
# several notebooks run side by side, and each would take all cores
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1"
)


def draw_pictures_once() -> None:
    """Draw a figure once, at its own size, where IPython draws it three times for a screen of twice the pixels."""
    import matplotlib.pyplot as plt
    from IPython.core import pylabtools

    drawn = pylabtools.print_figure
    quick = {"bbox_inches": None, "pil_kwargs": {"compress_level": 1}}
    pylabtools.retina_figure = lambda figure, base64=False, **_: drawn(figure, base64=base64, **quick)
    plt.install_repl_displayhook = lambda: None  # it draws for windows, of which there are none


def run_notebook(name: str, printed: str) -> None:
    """Run a notebook in this process, which ends with it."""
    from nbdev.test import nbdev_test

    status = 1
    try:
        file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for fd in (1, 2):
            os.dup2(file, fd)
        nbdev_test(path=f"nbs/{name}", n_workers=0)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def serve() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for library in LIBRARIES:
        importlib.import_module(library)
    draw_pictures_once()
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run_notebook(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers)


class WarmNotebooks:
    """The parent, started when the first notebook comes; use as a context manager."""

    def __enter__(self) -> WarmNotebooks:
        self._server: subprocess.Popen | None = None
        return self

    def __exit__(self, *exception: object) -> None:
        if self._server is not None:
            self._server.stdin.close()
            self._server.wait(10)

    def run(self, name: str) -> tuple[int, str]:
        """Run a notebook of ``nbs/``; its exit status and what it printed."""
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
                cwd=REPOSITORY,
                env={**os.environ, **ONE_THREAD},
            )
        with tempfile.TemporaryDirectory() as folder:
            printed = Path(folder) / "printed.txt"
            print(json.dumps([name, str(printed)]), file=self._server.stdin)
            status = int(self._server.stdout.readline() or -1)
            return status, printed.read_text(errors="replace") if printed.is_file() else ""


if __name__ == "__main__":
    serve()
