"""Concurrent image uploads into a dataset over one client, with a checkpoint of the uploaded images.

Belongs here: worker threads and their shared state. Does not: Airflow, HTTP details, reading sources.
"""
