"""Dose and overlap studies in X-ray ptychography: ``import fly64_nb as fly64``, then ``fly64.run(...)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fly64_nb.api import run
    from fly64_nb.axes.axis import Axis
    from fly64_nb.data.base import Base, MeasuredScan
    from fly64_nb.data.dataset import Dataset
    from fly64_nb.data.readers.reader import Reader
    from fly64_nb.data.reconstruction import Reconstruction
    from fly64_nb.design import StudyDesign, get_study_design
    from fly64_nb.methods.method import Method, Trained
    from fly64_nb.panel import explore
    from fly64_nb.results.study import Study, open_study

__version__ = "0.1.0"
__all__ = [
    "Axis",
    "Base",
    "Dataset",
    "MeasuredScan",
    "Method",
    "Reader",
    "Reconstruction",
    "Study",
    "StudyDesign",
    "Trained",
    "explore",
    "get_study_design",
    "open_study",
    "run",
]
_MODULES = {
    "api": ["run"],
    "axes.axis": ["Axis"],
    "data.base": ["Base", "MeasuredScan"],
    "data.dataset": ["Dataset"],
    "data.readers.reader": ["Reader"],
    "data.reconstruction": ["Reconstruction"],
    "design": ["StudyDesign", "get_study_design"],
    "methods.method": ["Method", "Trained"],
    "panel": ["explore"],
    "results.study": ["Study", "open_study"],
}


def __getattr__(name: str) -> Any:
    """A public name, loaded when it is first asked for: importing the package stays instant."""
    from importlib import import_module

    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module(f"fly64_nb.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What there is, with what is not loaded yet."""
    return sorted({*globals(), *__all__})
