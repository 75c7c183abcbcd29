#!/bin/sh
# Apache Kafka from its jars, configured as the official image is: KAFKA_NUM_PARTITIONS is num.partitions.
set -eu
options="-Xmx768m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
env | grep '^KAFKA_' | while IFS='=' read -r name value; do
	echo "$(echo "${name#KAFKA_}" | tr 'A-Z_' 'a-z.')=$value"
done >/tmp/server.properties
# shellcheck disable=SC2086
java $options -cp '/jars/*' kafka.tools.StorageTool format --ignore-formatted --cluster-id="$CLUSTER_ID" \
	--config=/tmp/server.properties
# shellcheck disable=SC2086
exec java $options -cp '/jars/*' kafka.Kafka /tmp/server.properties
