"""Whether an API's own definition says what the contract assumes.

May live here: reading definitions, comparing, suggesting. No Airflow, no requests: who asks has the definition already.
"""
