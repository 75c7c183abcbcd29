"""Connect to Kafka, SQS and Postgres, in one place for every room that speaks to them."""
