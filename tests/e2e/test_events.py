"""La page des événements dit ceux que le code écrit, et eux seuls, sous leur logger et à leur niveau."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.events import events

PAGE = Path(__file__).parents[2] / "docs/evenements.md"
SECTION = re.compile(r"^## .*`(fastapi_acl\.\w+)`$")
ROW = re.compile(r"^\| `(\w+)` \| ([A-Z, ]+) \| (.+) \| (.+) \|$")


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """Rend, par nom, les loggers et les niveaux que la page donne."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    logger = ""
    for line in PAGE.read_text("utf-8").splitlines():
        section, row = SECTION.match(line), ROW.match(line)
        logger = section[1] if section else logger
        if row:
            assert row[1] not in found, row[1]
            found[row[1]] = {logger, *re.findall(r"`(fastapi_acl\.\w+)`", row[3])}, set(row[2].split(", "))
    return found


def test_the_page_of_events_tells_those_the_code_writes_and_no_other() -> None:
    written = {
        name: ({one.logger for one in found}, {one.level for one in found})
        for name, found in events().items()
        if {one.level for one in found} != {"DEBUG"}
    }

    assert documented() == written
