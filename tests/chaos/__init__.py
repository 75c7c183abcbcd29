"""The chaos suite: real crashes of real processes, judged from the source's side.

``make chaos`` runs the whole matrix, ``test_chaos.py`` a short form of it. The system under test runs in worker
processes (``worker.py``) with the real adapters; crash windows are hit by name, by wrapping the seams from
outside (``windows.py``). Faults of brokers and queues are judged on durable ones (``durable.py``): Apache Kafka,
Tansu on S3, ElasticMQ on H2. The embedded ones are in memory: what they forget is their loss, which Headrace must
name, with the ranges. ``judge.py`` compares what brokers acknowledged with what is in lake and warehouse.
"""
