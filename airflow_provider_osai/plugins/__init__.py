"""The Airflow plugin: the job pages in the API server, and queries of Airflow's database.

Allowed here: what the API server mounts, and its queries. Not allowed: trust in unverified input, or in-memory state
that is needed for correctness.
"""
