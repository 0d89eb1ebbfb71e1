#!/usr/bin/env bash
# Installe, sur une Debian et en root, les serveurs dont les essais ont besoin ; ne fait rien s'ils sont là.
# Les essais lancent leurs propres serveurs, dans un dossier privé : aucun service du système n'est employé ni laissé.
# Usage : install_servers.sh INTERPRÉTEUR
set -u

interpreter=${1:-python3}
stand_in=secantusdb==0.7.0b3  # compatible avec MongoDB ; sous GPL, il reste dans son propre environnement

has_postgresql() { [ -n "${ACL_TEST_POSTGRESQL_URI:-}" ] || command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }
has_mariadb() { [ -n "${ACL_TEST_MYSQL_URI:-}" ] || PATH=$PATH:/usr/sbin command -v mariadbd >/dev/null 2>&1; }
has_pgbouncer() { PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null 2>&1; }
has_redis() { command -v redis-server >/dev/null 2>&1; }
has_faketime() { ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1; }
has_mongodb() { [ -n "${ACL_TEST_MONGODB_URI:-}${ACL_TEST_MONGODB_SERVER:-}" ] || [ -x .venv-mongodb/bin/secantusd-py ]; }

missing() {
  has_postgresql || echo -n " postgresql"
  has_mariadb || echo -n " mariadb-server"
  has_redis || echo -n " redis-server"
  has_pgbouncer || echo -n " pgbouncer"
  has_faketime || echo -n " faketime"
}

# Appelle apt-get, qui attend qu'un autre rende son verrou : celui de dpkg par son option, celui des listes par des essais.
patient_apt() {
  local error status=0
  error=$(mktemp)
  for _ in $(seq 60); do
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 "$@" 2>"$error" && status=0 || status=$?
    [ $status != 0 ] && grep -q '/lock' "$error" || break
    sleep 10
  done
  cat "$error" >&2; rm -f "$error"
  return $status
}

# Installe des paquets Debian sans que leurs services démarrent.
install_packages() {
  echo "→ installation de$1"
  mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
  local policy=/usr/sbin/policy-rc.d
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' > $policy; chmod +x $policy; trap "rm -f $policy" EXIT; }
  # shellcheck disable=SC2086 - une liste de paquets
  patient_apt update -q >/dev/null && patient_apt install -qy --no-install-recommends \
    -o Dpkg::Options::=--force-confold $1 | grep -E '^(Setting up|E:)'
}

packages=$(missing)
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  install_packages "$packages"
fi

if ! has_mongodb; then
  echo "→ installation de $stand_in dans .venv-mongodb"
  "$interpreter" -m venv --clear .venv-mongodb &&
    .venv-mongodb/bin/python -m pip install --disable-pip-version-check --quiet --progress-bar off "$stand_in"
fi

absent=$(missing; has_mongodb || echo -n " secantusdb")
[ -n "$absent" ] || exit 0
echo "Introuvable :$absent. Installez-le, ou donnez ACL_TEST_POSTGRESQL_URI, ACL_TEST_MYSQL_URI, ACL_TEST_MONGODB_URI ; sans lui, ses essais sont sautés." >&2
[ "${ACL_TEST_REQUIRE_SERVICES:-}" != 1 ]
