"""De vrais serveurs pour les essais : lancés des binaires de la machine, dans un dossier privé, sur un port libre."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

POSTGRES_HOMES: Final = "/usr/lib/postgresql"


class ServerUnavailableError(RuntimeError):
    """Le serveur ne peut pas être lancé sur cette machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def find_postgresql() -> Path:
    """Rend le dossier des binaires de PostgreSQL.

    Raises:
        ServerUnavailableError: il n'y en a pas.
    """
    on_path = shutil.which("initdb")
    homes = sorted(Path(POSTGRES_HOMES).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = [Path(on_path), *homes] if on_path else homes
    if not found:
        message = "PostgreSQL est introuvable (ni sur le PATH, ni dans /usr/lib/postgresql)"
        raise ServerUnavailableError(message)
    return found[-1].parent


class PostgreSQLServer:
    """Un PostgreSQL privé, qui peut être arrêté et relancé sur le même port."""

    def __init__(self) -> None:
        self._bin = find_postgresql()
        self._folder = Path(tempfile.mkdtemp(prefix="acl-pg-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def uri(self, database: str = "postgres") -> str:
        return f"postgresql://acl@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Lance le serveur ; un démarrage manqué ne laisse ni processus ni dossier.

        Raises:
            ServerUnavailableError: il n'a pas démarré ; le message est son journal.
        """
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "fsync": "off",  # synchronous_commit reste : sans lui, un arrêt brutal perd des écritures confirmées
            "full_page_writes": "off",
            "max_connections": 200,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = (self._folder / "log").open("ab")
        command = [*self._as_user(), str(self._bin / "postgres"), "-D", str(self._data), *options]
        # Une session à part : le Ctrl-C du terminal n'atteint que pytest, qui arrête ensuite le serveur.
        self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, start_new_session=True)
        log.close()
        try:
            self._wait(self._process)
        except BaseException:
            self.close()
            raise

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Arrête le serveur : SIGINT coupe les connexions proprement, SIGQUIT comme une panne."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), how)
            process.wait(timeout=30)
        except (FileNotFoundError, ProcessLookupError, IndexError, subprocess.TimeoutExpired):
            # Déjà mort, pas encore né, ou sourd : il ne doit rien en rester.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _prepare(self) -> None:
        if os.geteuid() == 0:
            try:
                shutil.chown(self._folder, "postgres", "postgres")
            except LookupError as error:
                message = "PostgreSQL ne tourne pas en root, et l'utilisateur « postgres » n'existe pas"
                raise ServerUnavailableError(message) from error
        self._run("initdb", "-D", str(self._data), "-U", "acl", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale")

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            probe = [str(self._bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
            if subprocess.run(probe, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise ServerUnavailableError((self._folder / "log").read_text())

    def _run(self, name: str, *arguments: str) -> None:
        command = [*self._as_user(), str(self._bin / name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._folder, check=False)
        if done.returncode != 0:
            raise ServerUnavailableError(done.stderr)

    @staticmethod
    def _as_user() -> list[str]:
        """PostgreSQL refuse de tourner en root."""
        return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
