"""Compter les connexions qu'un serveur a d'une base : ce que la bibliothèque dit avoir fermé l'est pour lui aussi."""

from __future__ import annotations

from typing import Any

import aiomysql
import asyncpg
from sqlalchemy.engine import make_url


async def connections(settings: dict[str, Any]) -> int:
    """Compte, sur un serveur SQL, les connexions à une base, celle-ci non comprise."""
    url = make_url(settings[f"{settings['database_type']}_uri"])
    if settings["database_type"] == "postgresql":
        opened = await asyncpg.connect(url.render_as_string(hide_password=False))
        query = "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"
        try:
            return int(await opened.fetchval(query))
        finally:
            await opened.close()
    connection = await aiomysql.connect(
        host=url.host, port=url.port or 3306, user=url.username, password=url.password or "", db=url.database
    )
    try:
        cursor = await connection.cursor()
        await cursor.execute("SELECT count(*) - 1 FROM information_schema.processlist WHERE db = database()")
        return int((await cursor.fetchone())[0])
    finally:
        connection.close()
