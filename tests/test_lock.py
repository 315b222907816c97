"""requirements/lock.txt fits pyproject.toml: what is asked for is there, at a version that is allowed, from nowhere."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import REPOSITORY

LOCK = (REPOSITORY / "requirements" / "lock.txt").read_text(encoding="utf-8").splitlines()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ASKED = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]


def test_the_lock_has_versions_and_no_address():
    wrong = [line for line in LOCK if not re.fullmatch(r"[a-z0-9-]+==[\w.+!]+( ; [^@:/#]+)?", line)]
    assert not wrong, f"make lock: {wrong}"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", [("Linux", "linux"), ("Darwin", "darwin")], ids=lambda system: system[1])
def test_each_requirement_has_one_version_that_it_allows(python, system):
    platform = {"platform_system": system[0], "sys_platform": system[1], "os_name": "posix"}
    environment = default_environment() | {"python_version": python, "python_full_version": f"{python}.9", **platform}
    locked: dict[str, list[str]] = {}
    for line in map(Requirement, LOCK):
        if line.marker is None or line.marker.evaluate(environment):
            locked.setdefault(canonicalize_name(line.name), []).append(str(line.specifier).removeprefix("=="))
    asked = [one for one in map(Requirement, ASKED) if one.marker is None or one.marker.evaluate(environment)]
    fits = lambda one, versions: len(versions) == 1 and one.specifier.contains(versions[0], prereleases=True)
    wrong = {str(one): found for one in asked if not fits(one, found := locked.get(canonicalize_name(one.name), []))}
    assert not wrong, f"make lock: {wrong}"
