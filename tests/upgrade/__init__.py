"""Upgrades of a whole Airflow on PostgreSQL while tasks are in flight; see docs/upgrades.md.

``python -m tests.upgrade [CASE ...]`` builds the wheels of version 0.1.0 and of this working tree, installs each in a
virtual environment, prints a row for each case and, last, a line of JSON that counts jobs that were duplicated, lost,
left running, cancelled by mistake or wrong. Real: both versions of the package, all components of Airflow,
PostgreSQL, and ``airflow db migrate``. Simulated: OSAI (the sandbox), whose jobs end when the case says so.
"""
