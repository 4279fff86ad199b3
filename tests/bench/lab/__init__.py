"""What `tests/bench/run` and `tests/budget/run` share: a PostgreSQL cluster, proxies, pgbench, meters, tables.

Python's standard library only. Everything listens on loopback, on ports that were free a moment before. What is
started here is stopped here, by its own process group, also when the script is interrupted.
"""
