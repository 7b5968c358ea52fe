"""What runs in Airflow's API server: the plugin, and the receiver of OSAI's webhooks.

May live here: what the server mounts. May not: trust in strangers, or state in memory that correctness needs.
"""
