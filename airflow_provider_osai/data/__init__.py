"""Training data: reading a user's images and annotations, and the flows that manage datasets.

Belongs here: users' files, flows over dataset calls. Does not: Airflow, HTTP details, the life cycle of jobs.
"""
