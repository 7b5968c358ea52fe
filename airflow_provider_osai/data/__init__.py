"""Data on its way to OSAI: what a user's source holds, and the flows that make datasets.

May live here: files of users, flows over dataset calls. May not: Airflow, HTTP details, what a job does over time.
"""
