"""The pages in Airflow's UI: a task's job, gate or upload, the history of models, and the list of jobs."""
