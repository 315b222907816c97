__version__ = "0.1.0"
__all__ = ["explore", "open_study"]


def __getattr__(name: str):
    """`open_study` and `explore`, loaded when they are first asked for: importing the package stays instant."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module({"explore": "fly64_nb.core.explore", "open_study": "fly64_nb.core.study"}[name]), name)


def __dir__() -> list[str]:
    """What there is, with what is not loaded yet."""
    return sorted({*globals(), *__all__})
