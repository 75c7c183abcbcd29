#!/bin/sh
# Makes the secrets of compose.yaml, each in a file of its own below docker/secrets, where there is none yet.
# They are read by the containers' users, whose numbers this machine does not know: the folder keeps others out.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

put() {
	[ -s "secrets/$1" ] && return
	printf '%s' "$2" >"secrets/$1"
	chmod 444 "secrets/$1"
	echo "secrets/$1"
}

put postgres_password "$(random)"
put redis_password "$(random)"
put clickhouse_password "$(random)"
put s3_secret_key "$(random)"
put grafana_password "$(random)"
put dagster_postgres "postgresql://headrace:$(cat secrets/postgres_password)@postgres:5432/dagster"
put cache_url "redis://:$(cat secrets/redis_password)@redis:6379/0"
put celery_broker "redis://:$(cat secrets/redis_password)@redis:6379/1"
put s3.json "{\"identities\": [{\"name\": \"headrace\", \"credentials\": [{\"accessKey\": \"headrace\", \"secretKey\": \"$(
	cat secrets/s3_secret_key
)\"}], \"actions\": [\"Admin\", \"Read\", \"Write\", \"List\", \"Tagging\"]}]}"
