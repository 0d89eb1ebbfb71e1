"""`python -m tests.planted_bugs [mot…]` : sème les fautes, et sort en erreur si l'une passe inaperçue."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from tests.planted_bugs import FAULTS
from tests.planted_bugs.fault import PACKAGE, ROOT, AnchorError, Fault, planted
from tests.support.servers import MONGODB_STAND_IN

COPIED = (PACKAGE, "tests", "docs", "examples", "policies", "pyproject.toml", "README.md", ".env.example")
WORKERS = 2
TIMEOUT = 300
PYTEST = ("-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider")
QUICK = ("-m", "not slow")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py(?:::[^\[\s]+)?)", re.MULTILINE)


class Run(NamedTuple):
    """Ce qu'ont dit des essais."""

    is_clean: bool
    failed: str
    """Premier essai en échec, sans ses paramètres ; vide s'il n'y en a pas."""
    said: str


def main(*words: str) -> int:
    """Sème chaque faute ; rend 1 si l'une passe inaperçue."""
    chosen = [one for one in FAULTS if not words or any(word in f"{one.name} {one.path}" for word in words)]
    sown = [one for one in chosen if not one.equivalent]
    say(f"{len(sown)} fautes à semer, {WORKERS} à la fois")
    with tempfile.TemporaryDirectory(prefix="planted-bugs-") as folder, ThreadPoolExecutor(WORKERS) as pool:
        field = Field(Path(folder), len(sown))
        missed = [fault.name for fault, is_seen in zip(sown, pool.map(field.sow, sown), strict=True) if not is_seen]
    say(f"{len(sown) - len(missed)} vues sur {len(sown)}" + "".join(f"\n  manquée : {name}" for name in missed))
    for fault in chosen:
        if fault.equivalent:
            say(f"  équivalente : {fault.name} ({fault.equivalent})")
    return 1 if missed else 0


class Field:
    """Les copies de l'arbre, et les essais déjà connus pour passer sans faute."""

    def __init__(self, folder: Path, total: int) -> None:
        self._total = total
        self._done = 0
        self._controls: dict[tuple[str, str], bool] = {}
        self._lock = threading.Lock()
        self._trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(WORKERS):
            copy_tree(folder / str(number))
            self._trees.put(folder / str(number))

    def sow(self, fault: Fault) -> bool:
        """Sème une faute, dit aussitôt ce qu'il en est, et rend vrai si un essai la voit."""
        started = time.monotonic()
        is_seen, verdict = self._judge(fault)
        with self._lock:
            self._done += 1
            say(f"[{self._done}/{self._total}] {fault.name} → {verdict} ({time.monotonic() - started:.0f} s)")
        return is_seen

    def _judge(self, fault: Fault) -> tuple[bool, str]:
        try:
            text = ast.unparse(planted(fault))
        except AnchorError as error:
            return False, f"introuvable : {error}"
        try:
            run = self._run(fault.tests.split(), fault.on, fault, text)
        except subprocess.TimeoutExpired:
            return True, f"vue : les essais ne finissent pas en {TIMEOUT} s"
        if run.is_clean or not run.failed:
            return False, "MANQUÉE" if run.is_clean else f"ÉCHEC SANS ESSAI : {run.said}"
        if not self._passes(run.failed, fault):
            return False, f"RIEN DE MESURÉ : {run.failed} échoue aussi sans la faute"
        return True, f"vue par {run.failed}"

    def _passes(self, test: str, fault: Fault) -> bool:
        """Vérifie que l'essai qui voit la faute passe sans elle."""
        key = (test, fault.on)
        if key not in self._controls:
            self._controls[key] = self._run([test], fault.on, fault, fault.source.read_text("utf-8")).is_clean
        return self._controls[key]

    def _run(self, tests: Sequence[str], databases: str, fault: Fault, text: str) -> Run:
        """Lance des essais dans une copie où le fichier de la faute a ce texte ; elle garde ce que Python a compilé."""
        tree = self._trees.get()
        planted_in = tree / fault.source.relative_to(ROOT)
        try:
            planted_in.write_text(text, "utf-8")
            return ran(tree, tests, databases)
        finally:
            shutil.copy(fault.source, planted_in)
            self._trees.put(tree)


def copy_tree(place: Path) -> None:
    """Copie ce que les essais lisent."""
    place.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, place / name)


def ran(place: Path, tests: Sequence[str], databases: str) -> Run:
    """Lance des essais dans une copie."""
    # Un serveur absent ferait sauter les essais : ils passeraient, et la faute aussi.
    servers = {"ACL_TEST_REQUIRE_SERVICES": "1", "ACL_TEST_MONGODB_SERVER": str(MONGODB_STAND_IN)}
    environment = {**servers, **os.environ, "PYTHONPATH": str(place), "ACL_TEST_DATABASES": databases}
    are_named = all("::" in test for test in tests)  # un essai nommé passe même s'il est long
    command = [sys.executable, *PYTEST, *(() if are_named else QUICK), *tests]
    found = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    failed = FAILED.search(found.stdout)
    said = f"{found.stdout[-300:]}{found.stderr[-300:]}"
    return Run(found.returncode == 0, failed[1] if failed else "", said)


def say(text: str) -> None:
    """Montre l'avancement, sans attendre."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
