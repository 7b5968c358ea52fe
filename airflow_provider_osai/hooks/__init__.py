"""Hooks that create OSAI clients from Airflow connections.

Allowed here: hooks, the shared client, and the deployment's secret. Not allowed: waiting, job logic, operators.
"""
