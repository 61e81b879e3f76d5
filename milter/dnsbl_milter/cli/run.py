"""`run`: the daemon.

Floor 5.
"""

import sys
from pathlib import Path

import click

from dnsbl_milter import log, supervisor
from dnsbl_milter.cli.common import config_option, configured, fail
from dnsbl_milter.listen import ListenError
from dnsbl_milter.scratch import FolderError


@click.command()
@config_option
def run(path: Path | None) -> None:
    """Run the daemon in the foreground, logging to stderr."""
    configuration = configured(path)
    log.start(configuration.settings.log.format, configuration.settings.log.level)
    try:
        sys.exit(supervisor.run(configuration, path))
    except ListenError as fault:
        fail(f"{configuration.source}: {fault}")
    except FolderError as fault:
        # No fault of the configuration, which a service manager would not try again with.
        fail(str(fault), status=1)
