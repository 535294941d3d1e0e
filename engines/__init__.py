"""Run one network: its specification, and backends that all answer to the same call."""
