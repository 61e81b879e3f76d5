"""Runs the command line as `python -m dnsbl_milter`."""

from dnsbl_milter.cli import main

main()
