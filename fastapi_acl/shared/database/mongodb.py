"""MongoDB par motor, ou par l'AsyncMongoClient de PyMongo : un jeu de répliques, pour ses transactions."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
import re
import time
import warnings
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, final
from uuid import uuid4

from bson.codec_options import DatetimeConversion
from bson.errors import InvalidBSON
from pymongo import ASCENDING, DESCENDING, IndexModel, ReadPreference
from pymongo.errors import (
    CollectionInvalid,
    DocumentTooLarge,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import split_options
from pymongo.write_concern import WriteConcern

from fastapi_acl.shared.database.base import COMPACTION, HEADLESS, AmbientDatabase, Head, Mode, Transaction, to_the_end
from fastapi_acl.shared.database.mongodb_pulse import BEAT_MILLISECONDS, Pulse
from fastapi_acl.shared.database.refusals import (
    CERTIFICATE,
    FULL,
    IDENTITY,
    READ_ONLY,
    Refusal,
    explain_refusals,
    rights_on,
)
from fastapi_acl.shared.database.versions import check_runs_ahead, refuse_without_schema, schema_behind
from fastapi_acl.shared.exceptions import (
    ChangeTooLargeError,
    ConfigurationError,
    DatabaseUnavailableError,
    StoredDataError,
    TransactionConflictError,
)
from fastapi_acl.shared.logging import get_logger, one_line
from fastapi_acl.shared.tasks import stop_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

logger = get_logger("database")

SCHEMA: Final = 2
"""Version des collections et de leurs index."""

OLDEST_VERSION: Final = "0.1.0"
"""Plus ancienne version du paquet que ces collections admettent."""

LOCK_TIMEOUT_SECONDS: Final = 5.0
"""Temps pendant lequel un écrivain attend que la tête du journal soit rendue."""

TURN_SECONDS: Final = 5.0
"""Temps pendant lequel une tâche attend que les autres du même processus aient pris la tête du journal."""

TRANSACTION_SECONDS: Final = 60.0
"""Temps au bout duquel MongoDB annule de lui-même une transaction ouverte."""

COMMIT_TRIES: Final = 3
"""Essais d'une validation dont la réponse se perd : la redemander ne la fait pas deux fois."""

OPTIONS: Final = {
    "serverSelectionTimeoutMS": 1_000,
    "connectTimeoutMS": 1_000,
    "socketTimeoutMS": 10_000,
    "heartbeatFrequencyMS": BEAT_MILLISECONDS,
    "retryWrites": True,
    "w": "majority",
}
"""Délais et garanties ; l'adresse peut en donner d'autres."""

CODEC: Final = {"datetime_conversion": DatetimeConversion.DATETIME_AUTO}
"""Une date qu'aucun `datetime` ne contient reste un nombre, que `fastapi_acl.shared.stored` juge."""

INSTEAD: Final = {
    "readpreference": "retirez-la : tout se lit sur le primaire, sans quoi une révocation se verrait trop tard",
    "readpreferencetags": "retirez-la : tout se lit sur le primaire",
    "maxstalenessseconds": "retirez-la : tout se lit sur le primaire",
}
"""Ce qu'il faut faire d'une option que nos transactions n'honorent pas."""

UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"
"""Ce que dit OpenSSL d'un certificat qu'il n'admet pas."""

UNREAD: Final = "l’adresse de la base (ACL_MONGODB_URI), ou un fichier qu’elle nomme, ne se lit pas."

_NAME: Final = re.compile(r"[A-Za-z_]{1,40}")
"""Forme d'un nom d'option."""

CONFLICT: Final = "TransientTransactionError"
UNKNOWN: Final = "UnknownTransactionCommitResult"
DUPLICATE: Final = 11_000
NAMESPACE_EXISTS: Final = 48

ROLE: Final = "donnez à ce compte le rôle readWrite sur la base (db.grantRolesToUser)"

REFUSALS: Final[Mapping[int, str]] = {
    13: ROLE,
    18: IDENTITY,
    8000: IDENTITY,
    10334: "un document dépasse 16 Mio, la limite de MongoDB",
    14031: FULL,
}
"""Ce que l'exploitant doit faire, par code d'un refus sans appel.

Source: https://www.mongodb.com/docs/manual/reference/error-codes/
"""

MAX_ENTRY_BYTES: Final = 15 << 20
"""Taille, en octets, de la plus grande entrée du journal : un document en a 16 Mio au plus, noms compris."""

STANDALONE: Final = (
    "ce serveur MongoDB est isolé, et un serveur isolé n’a pas de transactions : faites-en un jeu de répliques d’un "
    "nœud. Lancez « mongod --replSet rs0 », puis, une fois, « mongosh --eval 'rs.initiate()' », et ajoutez "
    "« ?replicaSet=rs0 » à ACL_MONGODB_URI."
)

IS_TEXT: Final = {"$type": "string"}
"""Ce que porte un champ qu'un index unique doit voir : l'absence, elle, peut se répéter."""

LOG_INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "acl_changes": [
        IndexModel(
            [("actor", ASCENDING), ("idempotency_key", ASCENDING)],
            unique=True,
            partialFilterExpression={"idempotency_key": IS_TEXT},
        ),
        IndexModel("kind"),
        IndexModel("live_until"),
    ],
    "acl_revision": [],
}
"""Les collections du journal, et leurs index au-delà de `_id`."""


@final
class MongoDatabase(AmbientDatabase):
    """MongoDB : sessions, transactions, collections et index.

    Une méthode de dépôt passe `session=` à chaque opération : `database.session()` la donne, celle de la transaction
    ambiante ou None, et une opération sans session vaut à elle seule.

    Source: https://www.mongodb.com/docs/manual/core/transactions/
    """

    def __init__(
        self,
        uri: str,
        indexes: Mapping[str, Sequence[IndexModel]] | None = None,
        *,
        auto_migrate: bool = True,
        client: Callable[..., Any] | None = None,
    ) -> None:
        """Retient l'adresse ; aucune connexion n'est ouverte avant le premier usage.

        Args:
            uri: adresse, telle que la configuration la donne ; sans nom de base, `fastapi_acl`.
            indexes: les collections de ceux qui s'en servent, et leurs index au-delà de `_id`.
            auto_migrate: fait les collections au démarrage ; sinon leur absence refuse de démarrer.
            client: classe du client ; motor s'il est installé, sinon l'AsyncMongoClient de PyMongo.

        Raises:
            ConfigurationError: l'adresse a une option que le pilote ne connaît pas, ou que nous n'honorons pas.
        """
        super().__init__()
        _check_options(uri)
        self._uri = uri
        self._indexes = {**(indexes or {}), **LOG_INDEXES}
        self._auto_migrate = auto_migrate
        self._make_client = client or _find_client_class()
        self._client: Any = None
        self._is_taking = False
        self._pulse = Pulse()
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def client(self) -> Any:  # noqa: ANN401 - de motor ou de PyMongo
        """Le client, fait au premier usage."""
        self.bind_loop()
        if self._client is None:
            _quiet_driver()
            self._pulse = Pulse()
            try:
                self._client = self._make_client(
                    self._uri, event_listeners=[self._pulse], **_options(self._uri), **CODEC
                )
            except (InvalidURI, ValueError, TypeError, OSError) as error:  # rien ne se joint encore : un fichier de TLS
                raise ConfigurationError(UNREAD) from error
        return self._client

    def collection(self, name: str) -> Any:  # noqa: ANN401 - de motor ou de PyMongo
        """Renvoie une collection."""
        return self.client.get_default_database("fastapi_acl")[name]

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        """Donne la session de la transaction ambiante, ou None : l'opération vaut alors à elle seule."""
        ambient = self.join()
        async with self._translate():
            self._check_pulse()
            with ambient.condemn_unless_done() if ambient is not None else nullcontext():
                yield ambient.connection if ambient is not None else None

    @asynccontextmanager
    async def begin(self, mode: Mode) -> AsyncIterator[Transaction]:
        """Ouvre une session et sa transaction, annulée à la sortie si elle n'a pas été validée."""
        async with self._translate():
            self._check_pulse()
            session = await settle(self.client.start_session())
            try:
                transaction = Transaction(connection=session)
                if mode is Mode.LOG:
                    transaction.head = await self._take_lock(session)
                else:
                    await self._start(session, "snapshot")
                yield transaction
            finally:
                await self._leave(session)

    async def commit(self, transaction: Transaction) -> None:
        """Valide ; une réponse perdue se redemande, ce qui ne valide pas deux fois."""
        async with self._translate():
            for left in reversed(range(COMMIT_TRIES)):
                try:
                    await transaction.connection.commit_transaction()
                except PyMongoError as error:  # noqa: PERF203 - c'est l'essai qui se répète
                    if not left or self._is_lost or not error.has_error_label(UNKNOWN):
                        raise
                else:
                    return

    async def read_head(self, transaction: Transaction) -> Head:
        """Renvoie la tête du journal."""
        found = await self.collection("acl_revision").find_one({"_id": 1}, session=transaction.connection)
        return _head(found)

    async def write_head(self, transaction: Transaction, head: Head) -> None:
        """Écrit la tête du journal, dont le document est tenu."""
        change = {"$set": asdict(head)}
        await self.collection("acl_revision").update_one({"_id": 1}, change, session=transaction.connection)

    async def read_place(self, transaction: Transaction) -> str:  # noqa: ARG002 - « hello » n'est pas d'une transaction
        """Nomme la base, le jeu de répliques, ses nœuds et le processus du primaire."""
        hello = await settle(self.client.admin.command("hello"))
        known = hello.get("topologyVersion", {}).get("processId"), *sorted(hello.get("hosts", ()))
        name = self.client.get_default_database("fastapi_acl").name
        return json.dumps([name, hello.get("setName"), *known], default=str)

    async def migrate(self, *, force: bool = False) -> None:
        """Fait les collections, leurs index et la tête du journal ; plusieurs processus peuvent le faire à la fois."""
        async with self._translate():
            await self._check_primary()
            with explain_refusals(_refusal_of):
                await self._migrate(upgrade=self._auto_migrate or force)
        if not force:  # le compte qui migre à part n'est pas celui qui servira
            async with self.begin(Mode.WRITE) as attempt:  # jamais validée
                await self.check_rights(attempt)

    async def _migrate(self, *, upgrade: bool) -> None:
        """Fait ce qui manque aux collections, si l'on en a le droit."""
        found = await self.collection("acl_revision").find_one({"_id": 1})
        if found is not None and found.get("schema", 0) > SCHEMA:
            check_runs_ahead(str(found["schema"]), found.get("min_code_version", "0"))
        elif found is None or found.get("schema", 0) < SCHEMA:
            schema_behind(upgrade=upgrade)
            await self._create()
        elif upgrade:
            await self._create()  # une sauvegarde restaurée a pu perdre les index

    async def check_rights(self, transaction: Transaction) -> None:
        """Essaie chaque droit ; ce qui s'écrit ainsi s'annule avec la transaction.

        Raises:
            ConfigurationError: il en manque un ; le message nomme la collection.
        """
        for name in self._indexes:
            for attempt in self._attempts(name, transaction.connection):
                with explain_refusals(_refusal_of, name):
                    await attempt()

    def _attempts(self, name: str, session: Any) -> Iterator[Callable[[], Awaitable[Any]]]:  # noqa: ANN401 - du pilote
        """Renvoie de quoi essayer chaque droit qu'il faut sur une collection, sur un document qui n'y est pas."""
        found, stranger = self.collection(name), {"_id": str(uuid4())}
        known = dict.fromkeys(_unique_fields(self._indexes[name]), stranger["_id"])
        attempts: dict[str, Callable[[], Awaitable[Any]]] = {
            "SELECT": lambda: found.find_one(stranger, session=session),
            "UPDATE": lambda: found.update_one(stranger, {"$set": {"kind": ""}}, session=session),
            "DELETE": lambda: found.delete_one(stranger, session=session),
            "INSERT": lambda: found.insert_one({**stranger, **known}, session=session),
        }
        return (attempt for right, attempt in attempts.items() if right in rights_on(name))

    async def check_size(self, transaction: Transaction, size: int) -> None:  # noqa: ARG002 - la limite est du protocole
        """Refuse une entrée du journal qui ne tiendrait pas dans un document."""
        if size > MAX_ENTRY_BYTES:
            raise ChangeTooLargeError(max_bytes=MAX_ENTRY_BYTES)

    async def check_schema(self) -> None:
        """Vérifie, sans rien créer, que les collections sont faites."""
        async with self._translate():
            await self._check_primary()
            found = await self.collection("acl_revision").find_one({"_id": 1})
        if found is None or found.get("schema", 0) < SCHEMA:
            refuse_without_schema()
        if found["schema"] > SCHEMA:
            check_runs_ahead(str(found["schema"]), found.get("min_code_version", "0"))

    async def close(self) -> None:
        """Ferme le client ; le prochain usage en ouvrirait un autre."""
        self.leave_loop()
        client, self._client = self._client, None
        for ending in tuple(self._endings):
            await stop_tasks(ending)
        if client is not None:
            await settle(client.close())

    def abandon(self) -> None:
        """Lâche le client d'une boucle qui n'existe plus ; celui de PyMongo ne se ferme que dans elle : il s'oublie."""
        client, self._client, self._is_taking = self._client, None, False
        self._endings.clear()
        closing = client.close() if client is not None else None
        if inspect.iscoroutine(closing):
            closing.close()

    async def _take_lock(self, session: Any) -> Head:  # noqa: ANN401 - du pilote
        """Écrit d'abord dans la tête du journal : toute autre écriture y est un conflit, et attend son tour.

        Raises:
            PyMongoError: le tour n'est pas venu à temps.
        """
        await self._wait_turn()
        self._is_taking = True
        try:
            return await self._contend(session)
        finally:
            self._is_taking = False

    async def _wait_turn(self) -> None:
        """Attend qu'aucune autre tâche de ce processus ne dispute la tête : une seule à la fois y suffit.

        Raises:
            DatabaseUnavailableError: le tour n'est pas venu à temps, ou la base s'est tue.
        """
        deadline = time.monotonic() + TURN_SECONDS
        while self._is_taking:
            self._check_pulse()
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError
            await asyncio.sleep(random.uniform(0.001, 0.005))  # noqa: S311 - pour ne pas revenir ensemble

    async def _contend(self, session: Any) -> Head:  # noqa: ANN401 - du pilote
        """Dispute la tête du journal aux autres processus.

        Raises:
            PyMongoError: un autre l'a tenue trop longtemps.
        """
        deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
        while True:
            await self._start(session, "snapshot")
            try:
                found = await self.collection("acl_revision").find_one_and_update(
                    {"_id": 1}, {"$inc": {"turn": 1}}, session=session
                )
            except PyMongoError as error:
                if not self._is_conflict(error) or time.monotonic() > deadline:
                    raise
                await _abort(session)
                await asyncio.sleep(random.uniform(0.001, 0.02))  # noqa: S311 - pour ne pas revenir ensemble
            else:
                return _head(found)

    @staticmethod
    async def _start(session: Any, level: str) -> None:  # noqa: ANN401 - du pilote
        """Commence une transaction."""
        concern = ReadConcern(level), WriteConcern("majority"), ReadPreference.PRIMARY
        await settle(session.start_transaction(*concern))

    async def _check_primary(self) -> None:
        """Refuse un serveur isolé, en donnant la commande qui le change.

        Raises:
            ConfigurationError: il n'appartient à aucun jeu de répliques, ou n'en est pas le primaire.
        """
        hello = await self.client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise ConfigurationError(STANDALONE)
        if not hello.get("isWritablePrimary", True):  # jointe sans découverte, une réplique ne mène pas au primaire
            message = f"ce nœud de MongoDB n’est pas le primaire : {READ_ONLY}."
            raise ConfigurationError(message)

    async def _create(self) -> None:
        """Fait ce qui manque ; une transaction ne sait pas, sur d'anciens serveurs, créer une collection."""
        database = self.client.get_default_database("fastapi_acl")
        for name, indexes in self._indexes.items():
            try:
                await database.create_collection(name)
            except CollectionInvalid:
                logger.debug("collection_exists: %s", name)
            except OperationFailure as error:
                if error.code != NAMESPACE_EXISTS:
                    raise
            if indexes:
                await _create_indexes(database[name], indexes)
        await self._create_head()

    async def _create_head(self) -> None:
        """Fait la tête du journal, si elle n'y est pas, et y note la version des collections."""
        if await self.collection("acl_revision").find_one({"_id": 1}) is None:
            await self._insert_head(await self._head_of_entries())
        older = {"_id": 1, "schema": {"$lt": SCHEMA}}
        await self.collection("acl_revision").update_one(older, {"$set": {"schema": SCHEMA}})

    async def _insert_head(self, head: Head) -> None:
        """Écrit la première tête, sauf si un autre processus vient de le faire."""
        first = {**asdict(head), "schema": SCHEMA, "min_code_version": OLDEST_VERSION}
        try:
            await self.collection("acl_revision").update_one({"_id": 1}, {"$setOnInsert": first}, upsert=True)
        except DuplicateKeyError:
            logger.debug("head_exists")

    async def _head_of_entries(self) -> Head:
        """Fait la tête des entrées qu'il reste, sous une autre identité : aucune, sauf si elle s'est perdue."""
        changes = self.collection("acl_changes")
        first, last = [
            await changes.find_one({}, {"_id": 1}, sort=[("_id", order)]) for order in (ASCENDING, DESCENDING)
        ]
        compaction = await changes.find_one({"kind": COMPACTION}, sort=[("_id", DESCENDING)])
        return Head.rebuilt(first and first["_id"], last and last["_id"], compaction and compaction.get("payload"))

    @property
    def _is_lost(self) -> bool:
        """Vrai si la base s'est tue."""
        return self._client is not None and self._pulse.is_lost(self._client)

    def _check_pulse(self) -> None:
        """Ne demande rien à une base qui s'est tue.

        Raises:
            DatabaseUnavailableError: elle ne répond plus.
        """
        if self._is_lost:
            raise DatabaseUnavailableError

    def _is_conflict(self, error: Exception) -> bool:
        """Dit si la transaction peut se refaire ; le pilote le croit aussi quand plus personne ne répond."""
        is_gone = self._is_lost or isinstance(error, ServerSelectionTimeoutError)
        return isinstance(error, PyMongoError) and error.has_error_label(CONFLICT) and not is_gone

    async def _leave(self, session: Any) -> None:  # noqa: ANN401 - du pilote
        """Renvoie une session ; d'une base muette, on n'attend pas qu'elle l'apprenne."""
        if not self._is_lost:
            await to_the_end(_end(session))
            return
        ending = asyncio.create_task(self._end_later(session), name="fastapi_acl-mongodb-end")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _end_later(self, session: Any) -> None:  # noqa: ANN401 - du pilote
        """Annule une transaction dès que la base reparle : elle a pu la commencer, et en tiendrait les verrous."""
        deadline = time.monotonic() + TRANSACTION_SECONDS
        while self._is_lost and time.monotonic() < deadline:  # noqa: ASYNC110 - les fils du pilote le disent
            await asyncio.sleep(BEAT_MILLISECONDS / 1_000)
        await _end(session)

    @asynccontextmanager
    async def _translate(self) -> AsyncIterator[None]:
        """Traduit les pannes en `DatabaseUnavailableError` ; un doublon passe tel quel, un dépôt l'attend."""
        try:
            yield
            self._trouble.is_over()
        except (PyMongoError, OSError) as error:
            if is_duplicate(error):
                raise
            if self._is_conflict(error):
                raise TransactionConflictError from error
            refusal = _refusal_of(error)
            if refusal is not None:
                raise self.note_refusal(refusal) from error
            self._trouble.goes_on(_words_of(error))
            raise DatabaseUnavailableError from error
        except InvalidBSON as error:  # le texte de l'erreur, lui, peut citer le document
            logger.error("stored_data_refused: %s", type(error).__name__)  # noqa: TRY400 - idem
            raise StoredDataError(table="") from error


def _unique_fields(indexes: Sequence[IndexModel]) -> Iterator[str]:
    """Énumère les champs dont un index garde l'unicité."""
    for index in indexes:
        if index.document.get("unique"):
            yield from index.document["key"]


async def _create_indexes(collection: Any, indexes: Sequence[IndexModel]) -> None:  # noqa: ANN401 - du pilote
    """Fait les index d'une collection, s'ils n'y sont pas.

    Raises:
        ConfigurationError: des documents s'y répètent : sans index, un nom a pu faire deux comptes.
    """
    try:
        await collection.create_indexes([*indexes])
    except PyMongoError as error:
        if not is_duplicate(error):
            raise
        message = (
            f"la collection « {collection.name} » a perdu un index unique, et des documents s’y répètent depuis : "
            "retirez les doublons, puis redémarrez."
        )
        raise ConfigurationError(message) from error


def _refusal_of(error: BaseException) -> Refusal | None:
    """Reconnaît un refus sans appel ; None si la base pourrait changer d'avis d'elle-même."""
    code = 10334 if isinstance(error, DocumentTooLarge) else getattr(error, "code", None)  # arrêté avant le serveur
    advice = REFUSALS.get(code) if isinstance(code, int) else None
    if UNTRUSTED in str(error):  # le pilote n'en garde que la phrase
        advice = CERTIFICATE
    return Refusal(_words_of(error), advice) if advice is not None else None


def _words_of(error: BaseException) -> str:
    """Nomme une erreur ; sa phrase peut citer un document."""
    details = getattr(error, "details", None) or {}
    return one_line(details.get("codeName") or type(error).__name__)


async def settle(value: Any) -> Any:  # noqa: ANN401 - du pilote
    """Attend ce qui s'attend : motor et PyMongo ne diffèrent, d'une méthode à l'autre, que par là."""
    return await value if inspect.isawaitable(value) else value


def is_duplicate(error: BaseException) -> bool:
    """Dit si une erreur est un doublon, seul ou dans une écriture groupée."""
    details = getattr(error, "details", None) or {}
    codes = {getattr(error, "code", None), *(one.get("code") for one in details.get("writeErrors", ()))}
    return isinstance(error, PyMongoError) and DUPLICATE in codes


def as_text(instant: datetime | None) -> str | None:
    """Écrit un instant en UTC, à la microseconde, de sorte que l'ordre des textes soit celui des instants.

    Les dates de BSON s'arrêtent à la milliseconde.
    """
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00") if instant is not None else None


def _find_client_class() -> Callable[..., Any]:
    """Renvoie la classe de client : motor s'il est installé, sinon celle de PyMongo."""
    try:
        from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415 - motor est facultatif
    except ImportError:
        from pymongo import AsyncMongoClient  # noqa: PLC0415 - depuis PyMongo 4.9

        return AsyncMongoClient
    return AsyncIOMotorClient


def _quiet_driver() -> None:
    """Tait le journal du pilote, qui écrit chaque document en DEBUG, hachés compris ; un niveau déjà choisi reste."""
    driver = logging.getLogger("pymongo")
    if driver.level == logging.NOTSET:
        driver.setLevel(logging.INFO)


def _check_options(uri: str) -> None:
    """Refuse ce que l'adresse demande, et que ni le pilote ni nous n'honorerions ; lui ne fait qu'en avertir.

    Raises:
        ConfigurationError: une option est inconnue, n'admet pas sa valeur, ou serait sans effet.
    """
    for pair in filter(None, re.split("[&;]", uri.partition("?")[2])):
        name = pair.partition("=")[0]
        if _NAME.fullmatch(name) is None:
            raise ConfigurationError(UNREAD)  # un mot de passe qui contient « ? » : le citer le montrerait
        advice = INSTEAD.get(name.lower()) or _refuse_option(pair)
        if advice is not None:
            message = f"dans ACL_MONGODB_URI, l’option « {name} » ne peut être honorée : {advice}."
            raise ConfigurationError(message)


def _refuse_option(pair: str) -> str | None:
    """Dit pourquoi le pilote n'honorerait pas une option ; None s'il l'honore."""
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = split_options(pair)
    except OSError:
        return "le fichier qu’elle nomme ne se lit pas"
    except (PyMongoError, ValueError, TypeError, LookupError):
        return "le pilote ne la connaît pas, ou n’en admet pas la valeur"
    if told:
        return "il y manque un paquet, que le pilote demande"
    return "une écriture sans réponse ne prouve rien ; écrivez w=majority" if found.get("w") == 0 else None


def _options(uri: str) -> dict[str, Any]:
    """Renvoie les options que l'adresse ne donne pas déjà."""
    given = uri.partition("?")[2].lower()
    return {name: value for name, value in OPTIONS.items() if f"{name.lower()}=" not in given}


def _head(found: Mapping[str, Any] | None) -> Head:
    """Refait la tête du journal de son document.

    Raises:
        DatabaseUnavailableError: il n'y est pas.
        StoredDataError: il ne se lit pas.
    """
    if found is None:
        raise DatabaseUnavailableError(HEADLESS)
    return Head.of(found)


async def _abort(session: Any) -> None:  # noqa: ANN401 - du pilote
    """Annule une transaction, si elle court encore ; déjà annulée par le serveur, il n'y a rien à dire."""
    if not session.in_transaction:
        return
    try:
        await session.abort_transaction()
    except PyMongoError:
        logger.debug("abort_failed")


async def _end(session: Any) -> None:  # noqa: ANN401 - du pilote
    """Annule ce qui court encore et rend la session."""
    await _abort(session)
    await session.end_session()
