"""The command line: one module a command, each calling into the house and showing what comes back.

Floor 5: the home of click and rich; imported by nothing. Exit status: 0 fine, 1 a problem was found, 2 wrong usage
or an invalid configuration.
"""

import click

from dnsbl_milter import __version__
from dnsbl_milter.cli.config import config
from dnsbl_milter.cli.doctor import doctor
from dnsbl_milter.cli.explain import explain
from dnsbl_milter.cli.imports import imports
from dnsbl_milter.cli.lists import catalog, lists
from dnsbl_milter.cli.memory import memory
from dnsbl_milter.cli.pauses import pause, resume
from dnsbl_milter.cli.run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dnsbl-milter")
def main() -> None:
    """Weigh what several DNS lists say about a client, and answer Sendmail with a graded action."""


main.add_command(run)
main.add_command(pause)
main.add_command(resume)
main.add_command(config)
main.add_command(explain)
main.add_command(lists)
main.add_command(catalog)
main.add_command(doctor)
main.add_command(memory)
main.add_command(imports)
