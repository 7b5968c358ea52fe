"""Images on their way into a dataset: many at once, over one client, with a memory of what was sent.

May live here: threads and what they share. May not: Airflow, HTTP details, what a source holds.
"""
