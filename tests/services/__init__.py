"""The suites that also run against Apache Kafka and S3; `make test-services` fetches both and asks for them."""
