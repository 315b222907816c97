"""What a profile of a study stands for, where a benchmark needs it: a base, and settings of a method."""

from __future__ import annotations

from typing import Any

from fly64_nb.data.base import Base
from fly64_nb.design import get_profile, make_base
from fly64_nb.methods.method import Method, make_settings, seeded, settings_of


def profile_base(profile: str) -> Base:
    """The built-in base of a profile."""
    return make_base(profile, get_profile(profile).patch_size)[0]


def method_settings(method: Method, profile: str, seed: int = 0, **changes: Any) -> Any:
    """Settings of a method in a profile, with changes."""
    return make_settings(method, seeded(method, settings_of(method, profile, changes), seed))
