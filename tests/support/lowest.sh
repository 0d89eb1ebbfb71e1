#!/usr/bin/env bash
# Exécute la partie rapide de la suite sur la plus ancienne version de chaque dépendance directe.
set -euo pipefail
interpreter=$1
venv=$2

[ -x "$venv-uv/bin/uv" ] || { "$interpreter" -m venv "$venv-uv"; "$venv-uv/bin/pip" install -q uv; }
echo "→ résolution des versions les plus anciennes"
"$venv-uv/bin/uv" pip compile -q --resolution lowest-direct --python "$interpreter" --extra all pyproject.toml -o "$venv.txt"
"$interpreter" -m venv --clear "$venv"
# Le TestClient de la plus ancienne Starlette admise ne connaît pas httpx 0.28.
"$venv/bin/pip" install -q --disable-pip-version-check -r "$venv.txt" "httpx<0.28" asgi-lifespan pytest pytest-asyncio pytest-xdist blockbuster opentelemetry-sdk hypothesis import-linter uvicorn
"$venv/bin/pip" install -q --disable-pip-version-check --no-deps -e .
tests/support/install_servers.sh "$1"
"$venv/bin/python" -m pytest -m "not slow" -n 3 --dist worksteal -W default -q
