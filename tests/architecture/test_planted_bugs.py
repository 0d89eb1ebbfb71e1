"""Les fautes semées ont une ancre que la mise en forme ne perd pas, et des essais qui existent."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.planted_bugs import FAULTS
from tests.planted_bugs.fault import PACKAGE, ROOT, planted


@pytest.mark.parametrize("path", sorted({fault.path for fault in FAULTS}))
def test_each_fault_of_a_file_has_one_place_and_leaves_a_file_that_compiles(path: str) -> None:
    for fault in FAULTS:
        if fault.path == path:
            compile(planted(fault), f"{path} : {fault.name}", "exec")


def test_the_tests_that_should_see_a_fault_exist() -> None:
    wanted = {test for fault in FAULTS for test in fault.tests.split()}

    assert [test for test in sorted(wanted) if not _exists(test)] == []


def test_no_two_faults_bear_one_name() -> None:
    names = Counter(fault.name for fault in FAULTS)

    assert [name for name, count in names.items() if count > 1] == []


def test_every_part_of_the_house_has_its_faults() -> None:
    parts = {path.name for path in (ROOT / PACKAGE).iterdir() if path.suffix == ".py" or path.is_dir()}
    parts |= {f"shared/{path.name}" for path in (ROOT / PACKAGE / "shared").iterdir() if path.is_dir()}
    known = {name for fault in FAULTS for name in (fault.path.split("/")[0], fault.path.rpartition("/")[0])}

    assert len(FAULTS) >= 150
    assert parts - known - {"__init__.py", "__main__.py", "__pycache__", "shared/__pycache__", "py.typed"} == set()


def _exists(test: str) -> bool:
    path, _, name = test.partition("::")
    place = ROOT / path
    return place.exists() and (not name or f"def {name}(" in place.read_text("utf-8"))
