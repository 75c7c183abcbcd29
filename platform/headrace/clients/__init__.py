"""Connections to Kafka, SQS and Postgres, made once for whoever speaks to them."""
