"""A short form of the fuzzing harness: no traceback, no nonsense, no hang, nothing above 1 GB."""

from __future__ import annotations

import numpy as np
import pytest

from fuzz_readers import BAD, Case, Reading, fuzz, nonsense, report
from reader_examples import EXAMPLES, write_example


@pytest.fixture(scope="module")
def reading(tmp_path_factory) -> Reading:
    return Reading(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_valid_file_is_read_and_some_mutated_ones_end_well(reading, name):
    place = reading.folder / f"own-{name.replace(' ', '-')}"
    place.mkdir()
    path = write_example(name, place, reading.scan)
    if name != "ptychodus diffraction" and name != "ptychodus-npz diffraction":  # patterns alone
        assert nonsense(reading.read(path, (), reading.options.get(name, reading.plain))) == ""
    for number in range(12):
        end, words = reading.run(Case(name, 17, number))
        assert end not in BAD, f"case {number}: {words}"


def test_a_case_is_always_the_same(reading):
    words = {reading.run(Case("tike", 5, 3), again=True) for _ in range(2)}
    assert len(words) == 1 and "" not in dict(words)
    place = reading.folder / "twice"
    place.mkdir()
    write_example("tike", place, reading.scan)
    assert [reading.new(place) for _ in range(2)] == [True, False]


def test_a_worker_reports_and_is_stopped():
    table = fuzz(["base", "tike"], 60, 6, 3, 1, 30, 6 * 2**30, None)
    assert sum(sum(ends.values()) for ends in table.values()) >= 6
    assert "| tike |" in report(table) and not any(ends[end] for ends in table.values() for end in BAD)


def test_what_cannot_be_true_is_seen(reading):
    place = reading.folder / "nonsense"
    place.mkdir()
    base = reading.read(write_example("base", place, reading.scan))
    for change in (
        {"object": np.full_like(base.object, np.nan)},
        {"probe": np.zeros_like(base.probe)},
        {"y": base.y + 1000},
        {"x": np.full_like(base.x, 20.0), "y": np.full_like(base.x, 20.0)},
        {"counts": np.zeros((len(base.y), 16, 16), np.uint32)},
    ):
        assert nonsense(type(base)(**{**vars(base), **change}))
