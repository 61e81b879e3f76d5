"""`config check`, `config show` and `config schema`.

Floor 5.
"""

import json
from pathlib import Path
from typing import Any

import click

from dnsbl_milter.cli.common import config_option, configured, json_option, print_json
from dnsbl_milter.configuration import shown_settings
from dnsbl_milter.settings import schema as settings_schema


@click.group()
def config() -> None:
    """Check and show the configuration."""


@config.command()
@config_option
def check(path: Path | None) -> None:
    """Validate the configuration and print every fault."""
    configuration = configured(path)
    for warning in configuration.warnings:
        click.echo(f"warning: {configuration.source}: {warning}", err=True)
    click.echo(f"{configuration.source}: fine, lists: {len(configuration.policy.lists)}")


@config.command()
@config_option
@json_option
def show(path: Path | None, as_json: bool) -> None:
    """Show the effective policy: defaults and catalog filled in, keys left out."""
    configuration = configured(path)
    shown = shown_settings(configuration)
    if as_json:
        print_json(shown)
        return
    click.echo(f"# {configuration.source}")
    for line in _toml(shown):
        click.echo(line)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    print_json(settings_schema())


def _toml(shown: dict[str, Any]) -> list[str]:
    """Write settings in the form of the file."""
    lines: list[str] = []
    for section, keys in shown.items():
        for table in keys if isinstance(keys, list) else [keys]:
            lines.append(f"\n[[{section}]]" if isinstance(keys, list) else f"\n[{section}]")
            lines += [f"{key} = {_toml_value(value)}" for key, value in table.items() if value is not None]
    return lines


def _toml_value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items() if item is not None) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return _toml_text(value) if isinstance(value, str) else json.dumps(value)


def _toml_text(text: str) -> str:
    # As in JSON, but for what lies beyond 16 bits and would be two escapes there, which TOML forbids.
    return '"' + "".join(each if " " <= each <= "~" and each not in '"\\' else f"\\U{ord(each):08x}" for each in text) + '"'
