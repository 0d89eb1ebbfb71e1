"""`fastapi-acl …` : l'exploitation en ligne de commande, sur les mêmes cas d'usage que les routes."""

from __future__ import annotations

import sys

import typer

from fastapi_acl.cli.maintenance import create_admin, declare_restored, migrate
from fastapi_acl.cli.policy import policy
from fastapi_acl.cli.reference import write_env_example, write_markdown
from fastapi_acl.cli.target import Application

app = typer.Typer(
    help="Exploite fastapi-acl. Les réglages sont ceux de l’application que --app nomme ; sinon, ils viennent des "
    "variables ACL_… et du fichier .env."
)
settings = typer.Typer(help="Réglages.")
app.command("create-admin")(create_admin)
app.command("migrate")(migrate)
app.command("restored")(declare_restored)
app.add_typer(policy, name="policy")
app.add_typer(settings, name="config")


@app.callback()
def choose(application: Application = None) -> None:
    """Reçoit les options communes, qui se donnent avant la commande ou après elle."""


@settings.command("env")
def config_env() -> None:
    """Écrit un .env commenté, un réglage par ligne."""
    sys.stdout.write(write_env_example())


@settings.command("table")
def config_table() -> None:
    """Écrit le tableau Markdown des réglages."""
    sys.stdout.write(write_markdown())


def main() -> None:
    """Point d'entrée de la commande."""
    app()
