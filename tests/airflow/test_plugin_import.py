"""Every Airflow process imports the plugin, so it may import next to nothing."""

import subprocess
import sys

CODE = """
import sys
import airflow.plugins_manager
before = set(sys.modules)
import airflow_provider_osai.plugins.osai
print(sorted(name for name in set(sys.modules) - before if not name.startswith("airflow_provider_osai")))
print(sorted(name for name in set(sys.modules) - before if name.startswith("airflow_provider_osai.")))
"""


def test_plugin_imports_only_itself_and_the_address_of_webhooks():
    """Not the API's models, pydantic's work for which takes most of the time of an import."""
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    others, ours = (eval(line) for line in run.stdout.splitlines()[-2:])
    assert others == []
    assert [name.removeprefix("airflow_provider_osai.") for name in ours] == [
        "plugins",
        "plugins.osai",
        "webhooks",
        "webhooks.address",
    ]
