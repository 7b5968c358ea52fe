"""The rule by which one model replaces another, and what the champion's log of promotions means.

May live here: pure decisions. No Airflow, no requests: who asks has the figures already.
"""
