"""The promotion policy, the decision whether a model replaces the champion, and the log of promotions.

Pure functions on metrics that the caller provides: no Airflow, no requests.
"""
