"""Links from Airflow's UI to the OSAI portal.

Allowed here: operator extra links. Not allowed: API calls, waiting.
"""
