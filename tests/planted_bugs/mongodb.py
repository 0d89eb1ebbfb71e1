"""Fautes de MongoDB : transactions, collections, journal, dépôts des comptes et des sessions."""

from tests.planted_bugs.fault import Fault

DATABASE = "shared/database/mongodb.py"
CHANGES = "shared/sync/mongodb_changes.py"
USERS = "auth/infrastructure/repositories/mongodb_auth_repository.py"
SESSIONS = "auth/infrastructure/repositories/mongodb_session_repository.py"

FAULTS = [
    # --- la base
    Fault(
        "une écriture de MongoDB n'attend pas la majorité",
        DATABASE,
        "MongoDatabase._start",
        "WriteConcern('majority')",
        "WriteConcern(1)",
        "tests/shared/test_database.py",
        "mongodb",
        equivalent="le serveur des essais n'a qu'un nœud, où un et la majorité sont le même",
    ),
    Fault(
        "des index perdus ne se refont pas",
        DATABASE,
        "MongoDatabase._migrate",
        "if upgrade:\n    await self._create()",
        "pass",
        "tests/storage/test_hostile_data.py::test_indexes_lost_by_a_restore_are_made_again_or_refused",
        "mongodb",
    ),
    Fault(
        "un serveur MongoDB isolé est admis",
        DATABASE,
        "MongoDatabase._check_primary",
        "raise ConfigurationError(STANDALONE)",
        "pass",
        "tests/shared/test_database.py::test_a_mongodb_alone_is_refused_with_the_command_that_changes_it",
        "mongodb",
    ),
    Fault(
        "deux écrivains de MongoDB tiennent le journal",
        DATABASE,
        "MongoDatabase._contend",
        "self.collection('acl_revision').find_one_and_update({'_id': 1}, {'$inc': {'turn': 1}}, session=session)",
        "self.collection('acl_revision').find_one({'_id': 1}, session=session)",
        "tests/storage/test_change_log.py::test_a_writer_waits_for_the_one_before",
        "mongodb",
    ),
    Fault(
        "un journal de MongoDB compacté oublie les révocations",
        CHANGES,
        "MongoChangeLog.discard",
        "[{'live_until': None}, {'live_until': {'$lte': _ago(KEPT)}}]",
        "[{}]",
        "tests/storage/test_change_log.py::test_what_is_discarded_is_gone_and_what_is_needed_stays",
        "mongodb",
    ),
    # --- comptes et sessions
    Fault(
        "sur MongoDB, une session s'ouvre pendant que son compte change",
        SESSIONS,
        "MongoDBSessionRepository.create_session",
        "if await self._is_current(document, connection):\n    return True",
        "return True",
        "tests/auth/test_mongodb_sessions.py::test_a_session_that_crossed_a_change_of_its_account_is_taken_back",
        "mongodb",
    ),
    Fault(
        "sur MongoDB, la session d'un compte qui a changé se renouvelle",
        SESSIONS,
        "MongoDBSessionRepository._is_current",
        "{'_id': session.get('user_id'), 'session_version': session.get('session_version')}",
        "{'_id': session.get('user_id')}",
        "tests/auth/test_repositories.py::test_a_session_of_an_account_that_changed_does_not_rotate",
        "mongodb",
    ),
    Fault(
        "sur MongoDB, un compte supprimé laisse ses sessions",
        USERS,
        "MongoDBAuthRepository.delete_user",
        "await self._database.collection('acl_sessions').delete_many({'user_id': str(user_id)}, session=session)",
        "",
        "tests/auth/test_repositories.py::test_deleting_an_account_deletes_its_sessions",
        "mongodb",
    ),
    Fault(
        "sur MongoDB, un rehachage écrase un mot de passe plus récent",
        USERS,
        "MongoDBAuthRepository.update_password",
        "{'_id': str(user_id), 'hashed_password': replaced}",
        "{'_id': str(user_id)}",
        "tests/auth/test_repositories.py::test_a_rehash_never_overwrites_a_newer_password",
        "mongodb",
    ),
    Fault(
        "sur MongoDB, la recherche de comptes est une expression rationnelle",
        USERS,
        "_make_conditions",
        "re.escape(fold(query))",
        "fold(query)",
        "tests/auth/test_repositories.py::test_a_search_is_literal_and_ignores_case",
        "mongodb",
    ),
]
