"""Airflow's connections made into clients.

May live here: hooks. May not: waiting, jobs' behaviour, operators.
"""
