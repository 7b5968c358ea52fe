"""Reads Dockerfile, ``.env`` and compose.yaml of the quick start as far as they use Docker's features."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.conftest import ROOT

COMPOSE = ROOT / "quickstart/compose"
PAGE = ROOT / "docs/install.md"
VARIABLE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)(?::(-|\?)([^}]*))?\})")


class Instruction(NamedTuple):
    """A line of a Dockerfile, with its continuations."""

    name: str
    text: str


def dockerfile(path: Path) -> list[Instruction]:
    """Return the instructions of a Dockerfile."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


def env_file(path: Path) -> dict[str, str]:
    """Return the variables of an ``.env`` file whose values are all in single quotes, which is to say literal."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    matches = [re.fullmatch(r"(\w+)='([^']*)'", line) for line in lines]
    assert all(matches), "a value without single quotes"
    return {match[1]: match[2] for match in matches if match}


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Fill in ``$NAME``, ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}``; ``$$`` is a dollar sign.

    :raises KeyError: with the message, if the last kind has no value.
    """

    def filled(match: re.Match[str]) -> str:
        name, operator, word = match[1] or match[2], match[3], match[4]
        if name is None:
            return "$"
        if operator == "?" and not variables.get(name):
            raise KeyError(f"{name}: {word}")
        return variables.get(name) or (word if operator == "-" else "")

    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    return VARIABLE.sub(filled, value) if isinstance(value, str) else value


def compose(variables: Mapping[str, str], path: Path = COMPOSE / "compose.yaml") -> dict[str, Any]:
    """Return the services of the active profiles."""
    services = interpolate(yaml.safe_load(path.read_text()), variables)["services"]
    active = set(variables.get("COMPOSE_PROFILES", "").split(","))
    return {
        name: service
        for name, service in services.items()
        if "profiles" not in service or active & set(service["profiles"])
    }


def in_order(services: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of services so that each follows those that it depends on."""
    remaining = dict(services)
    while remaining:
        ready = [name for name, service in remaining.items() if not needs(service) & set(remaining)]
        assert ready, f"a circle: {sorted(remaining)}"
        for name in ready:
            del remaining[name]
            yield name


def needs(service: Mapping[str, Any]) -> set[str]:
    """Return the services that one depends on; those whose network it shares are among them."""
    shared = service.get("network_mode", "").partition("service:")[2]
    return {*service.get("depends_on", {}), *([shared] if shared else [])}


def blocks(language: str, heading: str) -> list[str]:
    """Return the blocks of a language below a heading of the page."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert section, heading
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
