"""Client for the OSAI HTTP API: contract, requests, models, authentication and transport.

Layer rule: anything about HTTP, JSON and OSAI belongs here. No Airflow, no job lifecycle, no user files.
"""
