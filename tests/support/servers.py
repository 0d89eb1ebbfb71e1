"""De vrais serveurs pour les essais : lancés des binaires de la machine, dans un dossier privé, sur un port libre."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

POSTGRES_HOMES: Final = "/usr/lib/postgresql"
MONGODB_STAND_IN: Final = Path(__file__).parents[2] / ".venv-mongodb/bin/secantusd-py"
PORTS: Final = range(20_000, 32_000)
START_SECONDS: Final = 120
STOP_SECONDS: Final = 30
ROOM_BYTES: Final = 4 * 2**30


def fast_folder() -> str:
    """Rend où mettre ce qu'un essai jette : en mémoire quand il y a la place, sinon le dossier temporaire."""
    shared = Path("/dev/shm")  # noqa: S108 - chacun y fait un dossier privé
    has_room = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free >= ROOM_BYTES
    return str(shared) if has_room else tempfile.gettempdir()


class ServerUnavailableError(RuntimeError):
    """Le serveur ne peut pas être lancé sur cette machine."""


def free_port() -> int:
    """Rend un port libre, hors de ceux que le système prête aux connexions sortantes : il le reste pendant un arrêt."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
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


def find(name: str, *others: str) -> str:
    """Rend le chemin d'un binaire, sur le PATH ou dans /usr/sbin.

    Raises:
        ServerUnavailableError: il n'y en a pas.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    for candidate in (name, *others):
        found = shutil.which(candidate, path=path)
        if found is not None:
            return found
    message = f"{name} est introuvable (ni sur le PATH, ni dans /usr/sbin)"
    raise ServerUnavailableError(message)


class Server(ABC):
    """Un serveur privé, qui peut être arrêté et relancé sur le même port.

    Sous Linux, il meurt avec le fil d'exécution qui l'a lancé, même tué : une session interrompue ne laisse rien.

    Attributes:
        name: ce que le résumé en dit.
        user: compte du système sous lequel root le lance ; None, root lui-même.
        polite: signal d'un arrêt propre.
        brutal: signal d'une panne.
    """

    name: ClassVar[str]
    user: ClassVar[str | None] = None
    polite: ClassVar[signal.Signals] = signal.SIGTERM
    brutal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self) -> None:
        self.find()
        self._folder = Path(tempfile.mkdtemp(prefix="acl-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._own()
            self.prepare()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def find(self) -> None:
        """Trouve les binaires.

        Raises:
            ServerUnavailableError: ils manquent.
        """

    def prepare(self) -> None:  # noqa: B027 - la plupart n'en ont pas besoin
        """Fait le dossier de données."""

    @abstractmethod
    def command(self) -> list[str]:
        """Rend la commande qui lance le serveur."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Dit s'il répond."""

    @abstractmethod
    def uri(self, database: str = "") -> str:
        """Rend l'adresse d'une base."""

    @property
    def data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Lance le serveur ; un démarrage manqué ne laisse ni processus ni dossier.

        Raises:
            ServerUnavailableError: il n'a pas démarré ; le message est son journal.
        """
        # Une session à part : le Ctrl-C du terminal n'atteint que pytest, qui arrête ensuite le serveur.
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user(), *self.command()],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._environment(),
                start_new_session=True,
            )
        try:
            self._wait(self._process)
        except BaseException:
            self.close()
            raise

    def stop(self, how: signal.Signals | None = None) -> None:
        """Arrête le serveur, proprement par défaut."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            os.killpg(process.pid, self.polite if how is None else how)
            os.killpg(process.pid, signal.SIGCONT)  # figé, il ne mourrait pas
            process.wait(timeout=STOP_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            # Déjà mort, ou sourd : il ne doit rien en rester.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=START_SECONDS)

    def close(self) -> None:
        self.stop(self.brutal)
        shutil.rmtree(self._folder, ignore_errors=True)

    def freeze(self) -> None:
        """Fige le serveur, connexions ouvertes : il ne répond plus, sans rien refuser."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)
        while not all(map(_is_stopped, self._pids())):  # le signal est donné, chaque fil le reçoit à son tour
            time.sleep(0.005)

    def thaw(self) -> None:
        """Relance un serveur figé."""
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        """Rend ses processus : PostgreSQL en a un par connexion."""
        assert self._process is not None
        pid = self._process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def _as_user(self) -> list[str]:
        """Rend ce qui lance une commande sous le compte du serveur, et la lie à la vie de qui la lance."""
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            return []
        account = [f"--reuid={self.user}", f"--regid={self.user}", "--init-groups"]
        demoted = account if self.user is not None and os.geteuid() == 0 else []
        return [setpriv, *demoted, "--pdeathsig", self.brutal.name.removeprefix("SIG"), "--"]

    def _environment(self) -> dict[str, str]:
        """Donne un dossier temporaire à chaque serveur : à son départ, MariaDB efface les tables qu'il y trouve."""
        return {**os.environ, "TMPDIR": str(self._folder)}

    def _own(self) -> None:
        """Donne le dossier au compte du serveur, quand root le lance."""
        if self.user is None or os.geteuid() != 0:
            return
        try:
            shutil.chown(self._folder, self.user, self.user)
        except LookupError as error:
            message = f"{self.name} ne tourne pas en root, et l'utilisateur « {self.user} » n'existe pas"
            raise ServerUnavailableError(message) from error

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if self.is_ready():
                return
            time.sleep(0.05)
        raise ServerUnavailableError((self._folder / "log").read_text(errors="replace"))

    def run(self, *command: str) -> str:
        """Exécute une commande de préparation, sous le compte du serveur.

        Raises:
            ServerUnavailableError: elle a échoué.
        """
        whole = [*self._as_user(), *command]
        environment = self._environment()
        done = subprocess.run(whole, capture_output=True, text=True, cwd=self._folder, env=environment, check=False)
        if done.returncode != 0:
            raise ServerUnavailableError(done.stderr or done.stdout)
        return done.stdout

    def listens(self) -> bool:
        """Dit si le port répond."""
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class PostgreSQLServer(Server):
    """Un PostgreSQL privé ; SIGINT coupe les connexions proprement, SIGQUIT comme une panne."""

    name = "PostgreSQL"
    user = "postgres"
    polite = signal.SIGINT
    brutal = signal.SIGQUIT

    def find(self) -> None:
        self._bin = find_postgresql()

    def prepare(self) -> None:
        options = ("-U", "acl", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale")
        self.run(str(self._bin / "initdb"), "-D", str(self.data), *options)

    def command(self) -> list[str]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "fsync": "off",  # synchronous_commit reste : sans lui, un arrêt brutal perd des écritures confirmées
            "full_page_writes": "off",
            "max_connections": 200,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._bin / "postgres"), "-D", str(self.data), *options]

    def is_ready(self) -> bool:
        probe = [str(self._bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(probe, check=False).returncode == 0

    def uri(self, database: str = "postgres") -> str:
        return f"postgresql://acl@127.0.0.1:{self.port}/{database}"


class TLSPostgreSQLServer(PostgreSQLServer):
    """Un PostgreSQL qui offre TLS, sous un certificat que nul autre que nous ne connaît."""

    name = "PostgreSQL (TLS)"

    def prepare(self) -> None:
        super().prepare()
        subject = ("-subj", "/CN=essai", "-addext", "subjectAltName=IP:127.0.0.1")
        files = ("-keyout", str(self._folder / "key.pem"), "-out", str(self.certificate))
        self.run(find("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files)

    @property
    def certificate(self) -> Path:
        return self._folder / "certificate.pem"

    def command(self) -> list[str]:
        files = {"ssl": "on", "ssl_cert_file": self.certificate, "ssl_key_file": self._folder / "key.pem"}
        return [*super().command(), *(part for name, value in files.items() for part in ("-c", f"{name}={value}"))]


class PgBouncerServer(Server):
    """Un PgBouncer privé, qui prête les connexions d'un PostgreSQL le temps d'une transaction."""

    name = "PgBouncer"
    user = "postgres"

    def __init__(self, behind: PostgreSQLServer, *, pool_size: int = 3) -> None:
        """Prépare un pooler ; peu de connexions, pour que chacune serve à plusieurs."""
        self._behind = behind
        self._pool_size = pool_size
        super().__init__()

    def find(self) -> None:
        self._binary = find("pgbouncer")

    def prepare(self) -> None:
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": self._folder,
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": self._pool_size,
            "max_client_conn": 200,
        }
        behind = f"* = host=127.0.0.1 port={self._behind.port} user=acl"
        lines = ["[databases]", behind, "[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())]
        (self._folder / "pgbouncer.ini").write_text("\n".join(lines))
        (self._folder / "pgbouncer.ini").chmod(0o644)

    def command(self) -> list[str]:
        return [self._binary, "-q", str(self._folder / "pgbouncer.ini")]

    def is_ready(self) -> bool:
        return self.listens()

    def uri(self, database: str = "postgres") -> str:
        return f"postgresql://acl@127.0.0.1:{self.port}/{database}"


class MariaDBServer(Server):
    """Un MariaDB privé ; la collation par défaut reste celle du serveur, que nos tables ne doivent pas subir."""

    name = "MariaDB"
    user = "mysql"

    def find(self) -> None:
        self._server = find("mariadbd", "mysqld")
        self._install = find("mariadb-install-db", "mysql_install_db")
        self._client = find("mariadb", "mysql")

    def prepare(self) -> None:
        options = ("--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db")
        self.run(self._install, *options, f"--datadir={self.data}")
        account = "CREATE USER IF NOT EXISTS acl@'127.0.0.1';\nGRANT ALL ON *.* TO acl@'127.0.0.1' WITH GRANT OPTION;\n"
        account += "CREATE DATABASE IF NOT EXISTS acl;\n"
        (self._folder / "init.sql").write_text(account)
        (self._folder / "init.sql").chmod(0o644)

    def command(self) -> list[str]:
        settings = {
            "datadir": self.data,
            "port": self.port,
            "bind-address": "127.0.0.1",
            "socket": self._folder / "s",
            "pid-file": self._folder / "pid",
            "init-file": self._folder / "init.sql",
            "innodb-flush-log-at-trx-commit": 2,  # écrit à chaque validation, sans attendre le disque
            "innodb-flush-method": "nosync",  # un serveur tué ne perd rien de ce que le système a reçu
            "innodb-buffer-pool-size": "64M",
            "innodb-log-file-size": "64M",
            "max-connections": 200,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [self._server, "--no-defaults", *options, "--skip-log-bin", "--skip-name-resolve"]

    def is_ready(self) -> bool:
        probe = [self._client, "--no-defaults", "-h", "127.0.0.1", "-P", str(self.port), "-u", "acl", "-e", "SELECT 1"]
        return self.listens() and subprocess.run(probe, capture_output=True, check=False).returncode == 0

    def uri(self, database: str = "mysql") -> str:
        return f"mysql://acl@127.0.0.1:{self.port}/{database}"


class MongoDBServer(Server):
    """Le serveur compatible avec MongoDB, dans son propre environnement ; il n'est lié à rien de la bibliothèque."""

    name = "MongoDB (SecantusDB)"

    def __init__(self, *, standalone: bool = False, durable: bool = False) -> None:
        """Prépare un serveur ; durable, il écrit chaque validation sur le disque, comme MongoDB le fait."""
        self._standalone = standalone
        self._durable = durable
        super().__init__()

    def find(self) -> None:
        self._server = os.environ.get("ACL_TEST_MONGODB_SERVER", str(MONGODB_STAND_IN))
        if shutil.which(self._server) is None:
            message = f"secantusd-py est introuvable ({self._server}) : « make test » l'installe"
            raise ServerUnavailableError(message)

    def command(self) -> list[str]:
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(self.data)]
        options = [*(["--standalone"] if self._standalone else []), *(["--sync-on-commit"] if self._durable else [])]
        return [self._server, *address, "--log-level", "ERROR", *options]

    def is_ready(self) -> bool:
        return self.listens()

    def uri(self, database: str = "acl") -> str:
        options = "directConnection=true" if self._standalone else "replicaSet=secantus"
        return f"mongodb://127.0.0.1:{self.port}/{database}?{options}"


class RedisServer(Server):
    """Un Redis privé, qui ne garde rien : relancé, il est vide."""

    name = "Redis"

    def __init__(self, *options: str) -> None:
        """Prépare un serveur, options de plus comprises."""
        self._options = options
        super().__init__()

    def find(self) -> None:
        self._server = find("redis-server")

    def command(self) -> list[str]:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder, "appendonly": "no", "save": ""}
        return [
            self._server,
            *(part for name, value in options.items() for part in (f"--{name}", str(value))),
            *self._options,
        ]

    def is_ready(self) -> bool:
        return self.listens()

    def uri(self, database: Any = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"


class TLSRedisServer(RedisServer):
    """Un Redis qui ne parle que TLS, sous un certificat que nul autre que nous ne connaît."""

    name = "Redis (TLS)"

    def find(self) -> None:
        super().find()
        self._openssl = find("openssl")

    def prepare(self) -> None:
        subject = ("-subj", "/CN=essai", "-addext", "subjectAltName=IP:127.0.0.1")
        files = ("-keyout", str(self._folder / "key.pem"), "-out", str(self.certificate))
        self.run(self._openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files)

    @property
    def certificate(self) -> Path:
        return self._folder / "certificate.pem"

    def command(self) -> list[str]:
        files = ("--tls-cert-file", str(self.certificate), "--tls-key-file", str(self._folder / "key.pem"))
        return [*super().command(), "--port", "0", "--tls-port", str(self.port), *files, "--tls-auth-clients", "no"]

    def uri(self, database: Any = 0) -> str:
        return f"rediss://127.0.0.1:{self.port}/{database}?ssl_ca_certs={self.certificate}"


class SentinelServer(RedisServer):
    """Une sentinelle, qui mène au serveur d'un port, sous le nom de « service »."""

    name = "sentinelle de Redis"

    def __init__(self, master: int) -> None:
        self._master = master
        super().__init__()

    def prepare(self) -> None:
        lines = (f"port {self.port}", "bind 127.0.0.1", f"sentinel monitor service 127.0.0.1 {self._master} 1")
        (self._folder / "sentinel.conf").write_text("\n".join(lines))

    def command(self) -> list[str]:
        return [self._server, str(self._folder / "sentinel.conf"), "--sentinel"]


def _is_stopped(pid: int) -> bool:
    """Dit si aucun fil d'un processus ne court plus."""
    try:
        states = [
            (task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
        ]
    except OSError:  # un fil finit pendant qu'on regarde
        return not Path(f"/proc/{pid}").exists()
    return all(state in "TtZX" for state in states)
