"""Fautes des bases : transactions, verrous, connexions, TLS, migrations."""

from tests.planted_bugs.fault import Fault

BASE = "shared/database/base.py"
SQL = "shared/database/sql.py"
SQLITE = "shared/database/sqlite.py"
POSTGRESQL = "shared/database/postgresql.py"
LINK = "shared/database/postgresql_link.py"
MYSQL = "shared/database/mysql.py"
RUNNER = "shared/database/migrations/runner.py"

FAULTS = [
    # --- transaction ambiante
    Fault(
        "une annulation interrompt une validation",
        BASE,
        "AmbientDatabase._joined_or",
        "await to_the_end(self._finish(opened, mode))",
        "await self._finish(opened, mode)",
        "tests/attacks/test_memory.py::test_a_write_cancelled_once_validated_is_in_memory",
    ),
    Fault(
        "une annulation attendue jusqu'au bout se perd",
        BASE,
        "to_the_end",
        "raise cancelled",
        "",
        "tests/attacks/test_memory.py::test_a_write_cancelled_once_validated_is_in_memory",
    ),
    Fault(
        "une transaction condamnée se valide",
        BASE,
        "AmbientDatabase._finish",
        "opened.is_condemned",
        "False",
        "tests/storage/test_adapter.py::test_half_a_write_whose_error_is_silenced_is_never_committed",
    ),
    Fault(
        "une lecture échouée ne condamne pas la transaction",
        BASE,
        "Transaction.unbroken",
        "self.is_condemned = True",
        "",
        "tests/attacks/test_ambient.py::test_a_swallowed_reading_error_does_not_make_the_commit_lie",
    ),
    Fault(
        "les suites d'une validation courent avant elle",
        BASE,
        "AmbientDatabase._finish",
        "try:\n    await self.commit(opened)\n"
        "except DatabaseUnavailableError:\n"
        "    if mode is Mode.READ or opened.proof is None or (not await self._proved(opened.proof)):\n        raise\n"
        "opened.run_callbacks()",
        "opened.run_callbacks()\nawait self.commit(opened)",
        "tests/shared/test_database.py::test_a_transaction_that_could_not_be_validated_runs_no_callback",
    ),
    Fault(
        "une autre tâche emploie la transaction ambiante",
        BASE,
        "Transaction.check_owner",
        "raise TransactionNotOwnedError",
        "pass",
        "tests/shared/test_database.py::test_another_task_may_not_use_the_ambient_transaction",
    ),
    Fault(
        "une tâche née dans une transaction la croit ouverte",
        BASE,
        "AmbientDatabase._joined_or",
        "opened.is_over = True",
        "",
        "tests/attacks/test_ambient.py::test_a_task_born_in_a_transaction_works_once_it_is_over",
    ),
    Fault(
        "la politique se relit dans une transaction ouverte",
        BASE,
        "AmbientDatabase.require_alone",
        "raise TransactionNestedError",
        "pass",
        "tests/attacks/test_ambient.py::test_what_changes_the_whole_policy_is_refused_in_a_transaction",
    ),
    # --- SQL
    Fault(
        "auto_migrate est sans effet",
        SQL,
        "SQLDatabase.migrate",
        "self._auto_migrate or force",
        "True",
        "tests/shared/test_migrations.py::test_a_schema_behind_is_refused_when_migration_is_off",
    ),
    # --- SQLite
    Fault(
        "un écrivain de SQLite ne prend pas le verrou en commençant",
        SQLITE,
        "_begin",
        "'BEGIN IMMEDIATE' if writes else 'BEGIN'",
        "'BEGIN'",
        "tests/shared/test_database.py::test_concurrent_writers_get_contiguous_revisions",
    ),
    Fault(
        "supprimer un compte de SQLite laisse ses sessions",
        SQLITE,
        "_prepare_connection",
        "cursor.execute('PRAGMA foreign_keys = ON')",
        "",
        "tests/auth/test_repositories.py::test_deleting_an_account_deletes_its_sessions",
    ),
    Fault(
        "un écrivain annulé de SQLite garde le verrou",
        SQLITE,
        "_release_lock",
        "connection.rollback()",
        "pass",
        "tests/shared/test_database.py::test_a_cancelled_writer_leaves_nothing_half_done "
        "tests/attacks/test_cancelled.py",
    ),
    Fault(
        "un fichier SQLite s'ouvre à tous",
        "shared/database/sqlite_files.py",
        "make_private",
        "_create(target)",
        "pass",
        "tests/shared/test_development_key.py::test_the_files_of_sqlite_are_their_owners_alone_whatever_the_umask",
    ),
    Fault(
        "un fichier SQLite ouvert à d'autres ne se dit pas",
        "shared/database/sqlite_files.py",
        "make_private",
        "target.stat().st_mode & OTHERS",
        "False",
        "tests/shared/test_development_key.py::test_a_file_that_is_there_keeps_its_mode_and_is_named_when_others_open_it",
    ),
    Fault(
        "une base en mémoire perd ses tables",
        SQLITE,
        "_pool",
        "named_file(url.database, url.query) is None",
        "False",
        "tests/shared/test_database.py::test_a_memory_database_keeps_its_tables",
    ),
    Fault(
        "lire le schéma crée la base",
        SQLITE,
        "SQLiteDatabase.check_schema",
        "await asyncio.to_thread(_check_file, make_url(self._uri))",
        "",
        "tests/shared/test_database.py::test_looking_at_the_schema_creates_nothing_and_says_what_does",
    ),
    # --- PostgreSQL
    # --- MySQL
    Fault(
        "le certificat TLS d'un autre nom est admis sur MySQL",
        MYSQL,
        "_tls",
        "wanted.get('ssl_check_hostname', 'true').lower() != 'false'",
        "False",
        "tests/shared/test_mysql.py::test_a_certificate_of_another_name_is_refused_unless_the_name_is_not_asked_for",
        "mysql",
    ),
    # --- MongoDB
    # --- migrations
    Fault(
        "un schéma qui demande une version plus neuve est servi",
        "shared/database/versions.py",
        "check_runs_ahead",
        "_numbers(needed) > _numbers(version('fastapi-acl'))",
        "False",
        "tests/shared/test_migrations.py::test_a_schema_that_needs_a_newer_version_is_refused_and_names_it",
    ),
    Fault(
        "la table de règles d'un autre adaptateur est prise pour la nôtre",
        RUNNER,
        "migrate_connection",
        "_check_rules_table(connection)",
        "",
        "tests/shared/test_migrations.py::test_the_rules_table_of_another_adapter_is_refused_and_left_alone",
    ),
    Fault(
        "un journal sans tête ne se refait pas",
        RUNNER,
        "restore_head",
        "connection.execute(insert(revision_table).values(id=1, **asdict(head)))",
        "",
        "tests/storage/test_hostile_data.py::test_a_log_without_its_head_is_told_and_a_restart_gives_it_another",
    ),
    Fault(
        "une tête refaite rend des révisions déjà prises",
        BASE,
        "Head.rebuilt",
        "last or 0",
        "0",
        "tests/storage/test_hostile_data.py::test_a_log_without_its_head_is_told_and_a_restart_gives_it_another",
    ),
    Fault(
        "un instant perd sa zone",
        "shared/database/tables.py",
        "UTCDateTime.process_bind_param",
        "value.astimezone(timezone.utc)",
        "value.replace(tzinfo=timezone.utc)",
        "tests/shared/test_tables.py::test_an_instant_keeps_its_microseconds_and_its_zone",
    ),
    Fault(
        "deux écrivains prennent la même révision",
        SQL,
        "SQLDatabase._begin",
        "_HEAD.with_for_update()",
        "_HEAD",
        "tests/shared/test_database.py::test_concurrent_writers_get_contiguous_revisions",
        "postgresql",
    ),
    Fault(
        "une réserve pleine est aussitôt une panne",
        SQL,
        "SQLDatabase._connect",
        "is_silent or time.monotonic() >= deadline or not is_caused_by(error, _WAITS)",
        "True",
        "tests/shared/test_connections.py::test_a_busy_pool_is_a_queue_while_the_database_answers_others",
        "postgresql",
    ),
    Fault(
        "un opérateur fait dans notre schéma s'exécute avec nos droits",
        LINK,
        "PostgreSQLLink.open",
        "{'search_path': SEARCH_PATH, 'lock_timeout': self._lock_timeout}",
        "{'lock_timeout': self._lock_timeout}",
        "tests/shared/test_postgresql.py::test_nothing_that_another_account_makes_in_our_schema_is_ever_run",
        "postgresql",
    ),
    Fault(
        "derrière un pooler, un opérateur fait dans notre schéma s'exécute avec nos droits",
        LINK,
        "PostgreSQLLink.begin",
        "(SEARCH_PATH, self._lock_timeout)",
        "('public, pg_temp', self._lock_timeout)",
        "tests/shared/test_postgresql.py::test_nothing_that_another_account_makes_in_our_schema_is_ever_run",
        "postgresql",
    ),
    Fault(
        "la vue d'un autre compte est lue avant qu'on regarde à qui elle est",
        SQL,
        "SQLDatabase._migrate",
        "self.check_owners(connection)\nmigrate_connection(connection, upgrade=upgrade)",
        "migrate_connection(connection, upgrade=upgrade)",
        "tests/shared/test_postgresql.py::test_the_view_of_another_account_is_not_even_read",
        "postgresql",
    ),
    Fault(
        "une table d'un autre compte est employée",
        POSTGRESQL,
        "PostgreSQLDatabase.check_owners",
        "raise ConfigurationError(message)",
        "pass",
        "tests/shared/test_postgresql.py::test_a_table_made_by_another_account_refuses_to_start",
        "postgresql",
    ),
    Fault(
        "un pooler n'est pas vu",
        LINK,
        "PostgreSQLLink._look_around",
        "serving != connection.get_server_pid()",
        "False",
        "tests/shared/test_postgresql.py::test_a_pooler_is_seen_and_a_server_is_not_taken_for_one",
        "postgresql",
    ),
    Fault(
        "une lecture de MySQL n'est pas d'un seul instant",
        MYSQL,
        "_begin",
        "connection.get_execution_options().get(SNAPSHOT_OPTION, False)",
        "False",
        "tests/shared/test_mysql.py::test_a_transaction_reads_what_is_committed_and_a_snapshot_one_instant",
        "mysql",
    ),
    Fault(
        "MySQL coupe une valeur trop longue",
        MYSQL,
        "MySQLDatabase.create_engine",
        "{'charset': 'utf8mb4', 'connect_timeout': CONNECT_TIMEOUT_SECONDS, 'init_command': SESSION}",
        "{'charset': 'utf8mb4', 'connect_timeout': CONNECT_TIMEOUT_SECONDS, 'init_command': 'SET @any = 1'}",
        "tests/shared/test_mysql.py::test_a_session_is_strict_in_utc_and_reads_what_is_committed",
        "mysql",
    ),
]
