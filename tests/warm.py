"""Runs notebooks and commands in children of one process that has imported the libraries which most of them need.

Imports are two thirds of the time of a notebook that tests in a second, and all of that of a command that refuses. The
parent imports libraries and the package, draws one figure, so that fonts are found and grammars built, and runs nothing
else; it starts no thread before it forks. So the order of imports is not tested here; `test_layers` tests that no
module imports itself through others.

``python warm.py`` reads requests from standard input, one a line as JSON, and answers with the exit status of each.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "distributed", "h5py", "matplotlib.pyplot", "matplotlib_inline.backend_inline", "nbdev.test", "numba", "numpy",
    "pandas", "ptychi.api.task", "pydantic", "rich.console", "scipy.constants", "scipy.ndimage", "scipy.signal",
    "scipy.stats", "skimage.metrics", "torch", "torchmetrics.functional.image", "tqdm.auto", "typer",
)  # fmt: skip
# and of the package what takes long: TensorFlow is not among what it imports
PACKAGE = (
    "fly64_nb.api", "fly64_nb.cli", "fly64_nb.methods.likelihood.refinement", "fly64_nb.methods.pretrained",
    "fly64_nb.methods.ptychi.fast_lsqml", "fly64_nb.panel", "fly64_nb.show.docs",
)  # fmt: skip
# several run side by side, and each would take all cores
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1"
)


def draw_pictures_once() -> None:
    """Draw a figure once, at its own size and unpacked, where IPython draws it three times for twice the pixels.

    Where its panels lie is not looked for, which takes twice as long as drawing it: a study's own run does that.
    """
    import matplotlib.pyplot as plt
    from IPython.core import pylabtools

    drawn = pylabtools.print_figure

    def quickly(figure, base64=False, **_):
        layout = figure.get_layout_engine()
        figure.set_layout_engine(None)
        try:
            return drawn(figure, base64=base64, bbox_inches=None, pil_kwargs={"compress_level": 1})
        finally:
            figure.set_layout_engine(layout)

    pylabtools.retina_figure = quickly
    plt.install_repl_displayhook = lambda: None  # it draws for windows, of which there are none


def practise_drawing() -> None:
    """Draw a figure with what most figures have, so that no child begins with an empty cache."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 3))
    left, right = figure.subplots(1, 2)
    figure.colorbar(left.imshow([[0, 1]]), ax=left, label="rad")
    right.loglog([1e-3, 1e3], [1e-3, 1e3], label="loss")
    right.set(title="title", xlabel="x")
    right.legend()
    figure.savefig(io.BytesIO(), format="png")


def run_notebook(name: str) -> None:
    """Run a notebook of ``nbs/`` as ``nbdev_test`` does."""
    from nbdev.test import nbdev_test

    draw_pictures_once()
    nbdev_test(path=f"nbs/{name}", n_workers=0)


def run_command(*arguments: str) -> None:
    """Run ``fly64`` with arguments."""
    sys.argv = ["fly64", *arguments]
    from fly64_nb.cli import app

    app()


WHAT = {"notebook": run_notebook, "command": run_command}


def run_request(what: str, arguments: list[str], folder: str, environment: dict[str, str], printed: list[str]) -> None:
    """Run what is asked for in this process, which ends with it."""
    status = 1
    try:
        for fd, name, mode in ((0, os.devnull, os.O_RDONLY), *((n, p, os.O_WRONLY) for n, p in enumerate(printed, 1))):
            os.dup2(os.open(name, mode | (os.O_CREAT if fd else 0), 0o600), fd)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        WHAT[what](*arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def serve() -> None:
    """Answer requests until standard input ends."""
    answers, requests = os.fdopen(os.dup(1), "w", buffering=1), os.fdopen(os.dup(0))
    os.dup2(2, 1)
    for name in (*LIBRARIES, *PACKAGE):
        importlib.import_module(name)
    practise_drawing()
    gc.collect()
    gc.freeze()
    for line in requests:
        child = os.fork()
        if not child:
            run_request(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers)


class Warm:
    """The parent; it starts with the first request and ends with `close`."""

    def __init__(self) -> None:
        self._server: subprocess.Popen | None = None

    def close(self) -> None:
        """End the parent."""
        if self._server is not None:
            self._server.stdin.close()
            self._server.wait(10)

    def run(self, what: str, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess:
        """Run a ``"notebook"`` or a ``"command"``; like `subprocess.run`, with what it printed as text."""
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
        folder = str(REPOSITORY) if what == "notebook" else os.getcwd()
        with tempfile.TemporaryDirectory() as place:
            printed = [Path(place) / name for name in ("stdout", "stderr")]
            print(json.dumps([what, arguments, folder, environment, list(map(str, printed))]), file=self._server.stdin)
            answer = self._server.stdout.readline()
            assert answer, "the process that runs notebooks and commands has ended"
            texts = [path.read_text(errors="replace") if path.is_file() else "" for path in printed]
        return subprocess.CompletedProcess([what, *arguments], int(answer), *texts)


if __name__ == "__main__":
    serve()
