"""The job engine: how OSAI jobs are submitted, adopted, waited for and cancelled, over time and failures.

May live here: flows over calls, their drivers, what a job's reference and event are. May not: Airflow, HTTP details.
"""
