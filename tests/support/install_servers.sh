#!/usr/bin/env bash
# Installe, sur une Debian et en root, les serveurs dont les essais ont besoin ; ne fait rien s'ils sont là.
# Les essais lancent leurs propres serveurs, dans un dossier privé : le service du système n'est pas employé.
set -u

has_postgresql() {
  command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

missing=""
[ -n "${ACL_TEST_POSTGRESQL_URI:-}" ] || has_postgresql || missing="$missing postgresql"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "→ installation de$missing"
  mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
  apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends -o Dpkg::Options::=--force-confold $missing
fi
[ -n "${ACL_TEST_POSTGRESQL_URI:-}" ] || has_postgresql && exit 0

echo "Introuvable :$missing. Installez-le, ou donnez ACL_TEST_POSTGRESQL_URI ; sans lui, ses essais sont sautés." >&2
[ "${ACL_TEST_REQUIRE_SERVICES:-}" != 1 ]
