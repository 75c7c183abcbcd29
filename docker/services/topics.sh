#!/bin/sh
# Whether Kafka is well: it has the topics of HEADRACE_TOPICS (name:partitions, by spaces), which the first call makes.
set -eu
if [ -e /tmp/topics ]; then
	exec nc -z kafka 9092
fi
for topic in $HEADRACE_TOPICS; do
	/opt/kafka/bin/kafka-topics.sh --bootstrap-server kafka:9092 --create --if-not-exists \
		--topic "${topic%%:*}" --partitions "${topic##*:}"
done
touch /tmp/topics
