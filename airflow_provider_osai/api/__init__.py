"""OSAI over HTTP: what its API is, and how to speak to it.

May live here: anything that knows HTTP, JSON and OSAI. May not: Airflow, jobs' behaviour over time, files of users.
"""
