"""Downloads of models to a local path or object storage: resumable, verified, committed when complete. No Airflow."""
