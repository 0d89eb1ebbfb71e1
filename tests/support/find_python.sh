#!/usr/bin/env bash
# Écrit le chemin d'un Python 3.10+ qui marche : celui de PYTHON s'il est donné, sinon le plus récent de la machine.
# Un lanceur peut être sur le PATH sans rien lancer (les « shims » de pyenv) : chacun est essayé.
set -u

works() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

if [ -n "${PYTHON:-}" ]; then
  candidates="$PYTHON"
else
  candidates="python3.13 python3.12 python3.11 python3.10 python3 python"
fi
for candidate in $candidates; do
  if works "$candidate"; then
    "$candidate" -c 'import sys; print(sys.executable)'
    exit 0
  fi
done
exit 0
