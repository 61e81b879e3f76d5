"""`config check`, `config show` and `config schema`.

Floor 5.
"""

from pathlib import Path

import click

from dnsbl_milter.cli.common import config_option, configured, json_option, print_json
from dnsbl_milter.effective import as_toml, shown_settings
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
    click.echo(as_toml(shown))


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    print_json(settings_schema())
