"""Links from Airflow's pages to the portal's.

May live here: operator extra links. May not: calls, waiting.
"""
