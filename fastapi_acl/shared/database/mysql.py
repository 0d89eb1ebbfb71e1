"""MySQL et MariaDB par aiomysql."""

from __future__ import annotations

import ssl
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, final

from aiomysql import connection as driver  # type: ignore[import-untyped]
from sqlalchemy import event, func, literal_column, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from fastapi_acl.shared.database.refusals import RIGHTS
from fastapi_acl.shared.database.sql import (
    CONNECT_TIMEOUT_SECONDS,
    LOCK_TIMEOUT_SECONDS,
    MIGRATION_TIMEOUT_SECONDS,
    PATIENT,
    SQLDatabase,
    Use,
    patience_for,
    tell_migration_awaited,
)
from fastapi_acl.shared.exceptions import ConfigurationError, DatabaseUnavailableError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from sqlalchemy import Executable, Select
    from sqlalchemy.engine import URL, Connection

    from fastapi_acl.shared.database.base import Transaction

COMMAND_TIMEOUT_SECONDS: Final = 10
"""Temps, en secondes, laissé au serveur pour répondre ; sans lui, une base figée retient la requête sans fin."""

BULK_TIMEOUT_SECONDS: Final = 300
"""Temps, en secondes, laissé à une copie en masse."""

PING_SECONDS: Final = 0.5
"""Temps laissé à une connexion gardée pour dire qu'elle vit ; au-delà, on en ouvre une autre."""

ASKED_FROM: Final = 1 << 19
"""Taille, en octets, d'une entrée du journal à partir de laquelle on demande au serveur ce qu'il admet."""

PACKET_MARGIN: Final = 1 << 16
"""Ce qu'une instruction porte, en octets, en plus d'une entrée du journal."""

MIGRATION_LOCK: Final = "CONCAT('fastapi_acl_migration:', SHA1(DATABASE()))"
"""Nom du verrou de migration : propre à la base, et dans les 64 caractères que MySQL admet."""

SESSION: Final = (
    "SET SESSION sql_mode = 'TRADITIONAL,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00', "
    f"innodb_lock_wait_timeout = {LOCK_TIMEOUT_SECONDS}, lock_wait_timeout = {COMMAND_TIMEOUT_SECONDS}"
)
"""Réglages d'une session : une valeur trop longue est une erreur, jamais coupée ; aucun verrou ne s'attend sans fin."""

_PLACE: Final = select(func.database(), literal_column("@@hostname"), literal_column("@@port"))

HELD_SECONDS: Final = 0.1
"""Retard d'une alarme au-delà duquel la boucle d'événements était retenue."""

SSL_CONNECTION_ERROR: Final = 2026
"""Numéro que MySQL donne aux erreurs de TLS."""

SNAPSHOT_OPTION: Final = "fastapi_acl_snapshot"

TLS_OPTIONS: Final = ("ssl", "ssl_ca", "ssl_cert", "ssl_key", "ssl_check_hostname")

TLS_ADVICE: Final = "TLS se demande par ssl=true, ou par ssl_ca=/chemin/ca.pem"
"""Ce qu'on écrit à la place des options de TLS d'autres pilotes : les retirer seulement ôterait le chiffrement."""


@final
class MySQLDatabase(SQLDatabase):
    """MySQL et MariaDB : connexions éprouvées avant usage, délais bornés, verrou de migration nommé.

    Source : https://dev.mysql.com/doc/refman/8.0/en/locking-functions.html
    """

    def create_engine(self, use: Use = Use.REQUESTS) -> AsyncEngine:
        """Fait un moteur ; une session lit ce qui est validé, sauf à demander un instant unique.

        Raises:
            ConfigurationError: l'adresse ne nomme pas de base, sans laquelle le verrou de migration n'a pas de nom.
        """
        url = make_url(self._uri)
        if not url.database:
            message = "ACL_MYSQL_URI ne nomme pas de base : écrivez-la au bout de l’adresse, comme mysql://…@hote/base."
            raise ConfigurationError(message)
        connect = partial(_connect, patience_for(use, COMMAND_TIMEOUT_SECONDS))
        arguments = {"charset": "utf8mb4", "connect_timeout": CONNECT_TIMEOUT_SECONDS, "init_command": SESSION}
        engine = create_async_engine(
            url.set(drivername="mysql+aiomysql").difference_update_query(TLS_OPTIONS),
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            **self._pool_for(use),
            hide_parameters=True,
            connect_args={
                **arguments,
                "ssl": _tls(url),
                "async_creator_fn": connect,
            },
        )
        event.listen(engine.sync_engine, "begin", _begin)
        return engine

    def cut(self, driver_connection: Any) -> None:  # noqa: ANN401 - la nôtre, qu'aiomysql ne type pas
        """Coupe net une connexion."""
        driver_connection.cut()

    def account(self, connection: Connection) -> str:
        """Renvoie le compte et l'hôte d'où il vient, entre apostrophes."""
        return "@".join(f"'{part}'" for part in str(connection.scalar(func.current_user())).split("@"))

    def migration_rights(self) -> str:
        """Dit ce qu'il faut pour créer et changer des tables."""
        return (
            f"{RIGHTS} ; migrer demande « GRANT CREATE, ALTER, INDEX, REFERENCES ON … TO … » ; « fastapi-acl migrate » "
            "peut le faire sous un autre compte"
        )

    def place_query(self) -> Select[Any]:
        """Demande le nom de la base, celui de la machine et le port."""
        return _PLACE

    def take_migration_lock(self, connection: Connection) -> None:
        """Attend le verrou nommé, qui est à la connexion et non à la transaction : tout DDL valide celle-ci.

        Raises:
            DatabaseUnavailableError: une autre réplique le tient encore.
        """
        taken = text(f"SELECT GET_LOCK({MIGRATION_LOCK}, :seconds)")
        if connection.scalar(taken, {"seconds": 0}) == 1:
            return
        tell_migration_awaited(MIGRATION_TIMEOUT_SECONDS)
        if connection.scalar(taken, {"seconds": MIGRATION_TIMEOUT_SECONDS}) != 1:
            raise DatabaseUnavailableError

    def release_migration_lock(self, connection: Connection) -> None:
        """Renvoie le verrou, une fois validé ce qui a été fait : la réplique suivante doit le voir."""
        if connection.invalidated:
            return
        connection.exec_driver_sql("COMMIT")
        connection.execute(text(f"SELECT RELEASE_LOCK({MIGRATION_LOCK})"))

    async def max_entry_bytes(self, transaction: Transaction, size: int) -> int:
        """Renvoie ce que le serveur admet : une instruction tient dans un paquet, guillemets et barres doublés."""
        if size < ASKED_FROM:
            return ASKED_FROM
        packet = int(await transaction.connection.scalar(text("SELECT @@max_allowed_packet")))
        return (packet - PACKET_MARGIN) // 2

    async def bulk_execute(self, transaction: Transaction, statement: Executable) -> int:
        """Exécute une instruction en masse, avec la patience qu'il y faut."""
        opened: Any = await (await transaction.connection.connection()).get_raw_connection()
        connection = opened.driver_connection
        connection.be_patient(BULK_TIMEOUT_SECONDS)
        try:
            return await super().bulk_execute(transaction, statement.execution_options(**{PATIENT: True}))
        finally:
            connection.be_patient(COMMAND_TIMEOUT_SECONDS)

    def snapshot_options(self) -> Mapping[str, Any]:
        """Demande un instant unique pour toute la lecture."""
        return {SNAPSHOT_OPTION: True}


class _Connection(driver.Connection):  # type: ignore[misc]  # aiomysql n'est pas typé
    """Connexion où chaque paquet attendu a une échéance, au-delà de laquelle elle est coupée.

    aiomysql n'en donne qu'à l'ouverture du socket, et `asyncio.wait_for` ferait, avant Python 3.12, changer de tâche au
    milieu d'une transaction. Une seule alarme par connexion suffit : elle se remet à l'heure quand elle sonne trop tôt.
    """

    def __init__(self, **parameters: Any) -> None:  # noqa: ANN401 - paramètres d'aiomysql
        """Part avec la patience d'une ouverture."""
        super().__init__(**parameters)
        self._patience = CONNECT_TIMEOUT_SECONDS
        self._until: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self.is_late = False

    def be_patient(self, seconds: float) -> None:
        """Change le temps laissé à chaque paquet."""
        self._patience = seconds
        self._disarm()

    def cut(self) -> None:
        """Coupe la connexion : ce qu'elle attend échoue aussitôt."""
        self.is_late = True
        if self._writer is not None:
            self._writer.transport.abort()

    async def ping(self, reconnect: bool = True) -> None:  # noqa: FBT001, FBT002 - la signature d'aiomysql
        """Éprouve la connexion, sans attendre longtemps une base muette."""
        patience = self._patience
        self.be_patient(PING_SECONDS)
        try:
            await super().ping(reconnect)
        finally:
            self.be_patient(patience)

    def close(self) -> None:
        """Ferme la connexion et son alarme ; d'une boucle qui n'existe plus, il n'y a qu'à l'oublier."""
        self._disarm()
        if self._loop.is_closed():
            self._writer = self._reader = None
        else:
            super().close()

    async def ensure_closed(self) -> None:
        """Annonce la fermeture au serveur, puis ferme, qu'il soit encore là ou non."""
        try:
            await super().ensure_closed()
        finally:
            self.close()

    async def _request_authentication(self) -> None:
        """S'authentifie, sauf si le serveur n'offre pas le chiffrement demandé, dont aiomysql se passerait.

        Raises:
            OperationalError: il ne l'offre pas.
        """
        if self._ssl_context is not None and not self.server_capabilities & driver.CLIENT.SSL:
            raise driver.OperationalError(SSL_CONNECTION_ERROR, "le serveur n’offre pas TLS, que l’adresse demande")
        await super()._request_authentication()

    async def _read_packet(self, *arguments: Any) -> Any:  # noqa: ANN401 - idem
        """Attend un paquet, jusqu'à l'échéance."""
        self._until = self._loop.time() + self._patience
        if self._alarm is None:
            self._alarm = self._loop.call_at(self._until, self._ring)
        try:
            return await super()._read_packet(*arguments)
        finally:
            self._until = None

    def _ring(self) -> None:
        """Coupe la connexion si l'échéance du paquet attendu est passée.

        Le temps où la boucle était retenue ne compte pas : la réponse peut être là, que nul n'a encore lue.
        """
        held = self._loop.time() - self._alarm.when() if self._alarm is not None else 0.0
        self._alarm = None
        if self._until is None or self._writer is None:
            return
        if held > HELD_SECONDS:
            self._until += held
        if self._loop.time() < self._until:
            self._alarm = self._loop.call_at(self._until, self._ring)
        else:
            self.cut()

    def _disarm(self) -> None:
        """Oublie l'alarme."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


async def _connect(patience: float, **parameters: Any) -> _Connection:  # noqa: ANN401 - paramètres d'aiomysql
    """Ouvre une connexion ; aiomysql n'a pas d'entrée publique pour une sous-classe, et tait la cause d'un échec.

    Raises:
        ConfigurationError: l'adresse a un paramètre que le pilote ne connaît pas.
        OperationalError: le serveur ne répond pas, ou refuse ; un certificat refusé y est dit.
    """
    unknown = sorted(parameters.keys() - signature(driver.Connection).parameters.keys())
    if unknown:
        advice = TLS_ADVICE if unknown[0].startswith(("ssl", "tls")) else "retirez-le"
        message = f"dans ACL_MYSQL_URI, le paramètre « {unknown[0]} » n’est pas connu du pilote : {advice}."
        raise ConfigurationError(message)
    connection = _Connection(**parameters)
    try:
        await connection._connect()  # noqa: SLF001
    except driver.OperationalError as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        reason = TimeoutError() if connection.is_late else error
        raise driver.OperationalError(error.args[0], f"{error.args[1]}{cause}") from reason
    connection.be_patient(patience)
    return connection


def _begin(connection: Connection) -> None:
    """Commence, si l'option le demande, une lecture d'un seul instant ; seule la transaction qui vient en dépend."""
    if connection.get_execution_options().get(SNAPSHOT_OPTION, False):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def _tls(url: URL) -> ssl.SSLContext | None:
    """Lit les options TLS de l'adresse ; None si elle n'en a pas.

    Raises:
        ConfigurationError: un fichier ne se lit pas.
    """
    wanted = {name: str(url.query[name]) for name in TLS_OPTIONS if name in url.query}
    if not wanted or wanted.get("ssl", "true").lower() == "false":
        return None
    try:
        context = ssl.create_default_context(cafile=wanted.get("ssl_ca"))
        if "ssl_cert" in wanted:
            context.load_cert_chain(wanted["ssl_cert"], wanted.get("ssl_key"))
    except OSError as error:
        message = "un fichier de TLS que nomme ACL_MYSQL_URI (ssl_ca, ssl_cert, ssl_key) manque, ou ne se lit pas."
        raise ConfigurationError(message) from error
    context.check_hostname = wanted.get("ssl_check_hostname", "true").lower() != "false"
    return context
