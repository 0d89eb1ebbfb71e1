"""De vrais serveurs pour les essais : lancés des binaires de la machine, dans un dossier privé, sur un port libre."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
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
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        self._run("initdb", "-D", str(self._data), "-U", "acl", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale")

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def uri(self, database: str = "postgres") -> str:
        return f"postgresql://acl@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": 200,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        log = (self._folder / "log").open("ab")
        command = [*self._as_user(), str(self._bin / "postgres"), "-D", str(self._data), *options]
        self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        log.close()
        self._wait()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Arrête le serveur : SIGINT coupe les connexions proprement, SIGQUIT comme une panne."""
        if self._process is None:
            return
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, how)
        self._process.wait(timeout=30)
        self._process = None

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
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
