#!/bin/sh
# Postgres from Debian's package, set up as the official image is: by POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD_FILE.
set -eu
data=/var/lib/postgresql/data/pg
PATH="$(echo /usr/lib/postgresql/*/bin):$PATH"
if [ ! -s "$data/PG_VERSION" ]; then
	initdb --pgdata="$data" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth=scram-sha-256 \
		--locale=C.UTF-8 --encoding=UTF8 >/dev/null
	echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
	pg_ctl --pgdata="$data" --options="-c listen_addresses= -c unix_socket_directories=/tmp" --wait start >/dev/null
	PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"
	export PGPASSWORD
	createdb --host=/tmp --username="$POSTGRES_USER" "$POSTGRES_DB"
	for file in /docker-entrypoint-initdb.d/*.sql; do
		[ -e "$file" ] && psql --host=/tmp --username="$POSTGRES_USER" --quiet --file="$file" "$POSTGRES_DB"
	done
	pg_ctl --pgdata="$data" --wait stop >/dev/null
fi
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp
