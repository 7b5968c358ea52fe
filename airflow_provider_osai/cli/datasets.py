"""``osai-airflow datasets``: list the datasets of an account, or check a folder of images."""

from __future__ import annotations

import argparse

from airflow_provider_osai.cli.output import redirect_stdout, write_json
from airflow_provider_osai.cli.session import connected
from airflow_provider_osai.cli.tables import write_table

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Run the subcommand; return the exit code."""
    if options.command == "check":
        # Not at the top: listing needs neither Pillow nor the rules.
        from airflow_provider_osai.cli.datasets_check import run as check

        return check(options)
    with redirect_stdout(enabled=True), connected(options.conn_id) as client:
        datasets = client.list_datasets(options.name)
    if options.json:
        fields = [dataset.model_dump(mode="json") for dataset in datasets]
        write_json({"conn_id": options.conn_id, "datasets": fields})
    else:
        rows = [(each.id, each.name, each.image_count, each.locked, each.updated_at) for each in datasets]
        write_table(("ID", "NAME", "IMAGES", "LOCKED", "UPDATED"), rows)
    return 0
