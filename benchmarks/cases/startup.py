"""What a person waits for before anything happens, and which modules that take long to import were imported by then."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from case import Case, in_child

HEAVY = (
    "torch",
    "tensorflow",
    "keras",
    "ptychi",
    "pandas",
    "matplotlib",
    "dask",
    "distributed",
    "scipy",
    "numpy",
    "h5py",
    "skimage",
    "IPython",
    "papermill",
)
IMPORTED = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


def fly64(*arguments: str) -> Callable[[], None]:
    """The command, as a shell would start it."""
    program = Path(sys.executable).with_name("fly64")
    command = [str(program)] if program.is_file() else [sys.executable, "-c", "from fly64_nb.cli import app; app()"]
    return lambda: subprocess.run([*command, *arguments], check=True, capture_output=True)


def imports(module: str) -> Case:
    """How many heavy modules an import brings along."""
    found: list[str] = []

    def count() -> int:
        found[:] = in_child(IMPORTED, module, *HEAVY).split()
        return len(found)

    return Case(
        f"heavy modules behind {module}",
        count,
        unit="modules",
        bound=0,
        peer_name="none",
        repeats=1,
        warm_up=False,
        note=lambda: ", ".join(found) or "none",
    )


def cases(full: bool, gpu: bool) -> list[Case]:
    bare = lambda: subprocess.run([sys.executable, "-c", "pass"], check=True)
    return [
        Case("fly64 --help", fly64("--help"), peer=bare, peer_name="python -c pass"),
        Case("fly64 --help", fly64("--help"), bound=0.3, peer_name="0.3 s, the aim"),
        Case(
            "fly64 run STUDY --dry-run",
            fly64("run", tempfile.gettempdir() + "/no-such-study", "--dry-run"),
            peer=bare,
            peer_name="python -c pass",
            repeats=5,
        ),
        *(
            Case(
                f"import {module}",
                lambda m=module: in_child(f"import {m}"),
                peer=bare,
                peer_name="python -c pass",
                repeats=3,
            )
            for module in ("fly64_nb.design", "fly64_nb.comparison")
        ),
        *(imports(module) for module in ("fly64_nb.cli", "fly64_nb.design", "fly64_nb.training")),
    ]
