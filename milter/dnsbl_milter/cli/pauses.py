"""`pause` and `resume`: one list, or everything, on observation, at once and without editing.

Floor 5.
"""

import time
from pathlib import Path

import click

from dnsbl_milter import pauses
from dnsbl_milter.cli.common import config_option, configured, fail


@click.command()
@click.argument("list_name", metavar="[LIST]", required=False)
@click.option("--for", "duration", metavar="DURATION", help="Resume by itself after so long: 30m, 2h, 1d.")
@config_option
def pause(list_name: str | None, duration: str | None, path: Path | None) -> None:
    """Put LIST, or everything, on observation: looked up, logged and counted, but adding nothing."""
    until = None
    if duration is not None:
        try:
            until = time.time() + pauses.parse_duration(duration)
        except ValueError as fault:
            raise click.BadParameter(f"{duration!r}: {fault}", param_hint="--for") from None
    name = _known(list_name, path)
    kept = pauses.read(pauses.file(), time.time())
    _write(kept | {name: until})
    _show()


@click.command()
@click.argument("list_name", metavar="[LIST]", required=False)
@config_option
def resume(list_name: str | None, path: Path | None) -> None:
    """End the pause of LIST; without LIST, every pause."""
    kept = pauses.read(pauses.file(), time.time())
    if list_name is None:
        kept.clear()
    elif kept.pop(_known(list_name, path), list_name) == list_name:
        click.echo(f"{list_name} is not paused")
    _write(kept)
    _show()


def _known(list_name: str | None, path: Path | None) -> str:
    if list_name is None or list_name == pauses.EVERYTHING:
        return pauses.EVERYTHING
    names = configured(path).zones
    if list_name not in names:
        raise click.BadParameter(f"there is no list {list_name!r}; there are {', '.join(names)}", param_hint="LIST")
    return list_name


def _write(kept: dict[str, float | None]) -> None:
    file = pauses.file()
    try:
        pauses.write(file, kept)
    except OSError as fault:
        fail(f"{file.parent}: {fault.strerror}; run this as root, or set STATE_DIRECTORY to the daemon's state directory")
    time.sleep(pauses.LOOK_SECONDS)  # whoever reads that it is paused may rely on it


def _show() -> None:
    kept = pauses.read(pauses.file(), time.time())
    for name, until in kept.items():
        what = "everything" if name == pauses.EVERYTHING else name
        end = "until it is resumed" if until is None else time.strftime("until %Y-%m-%d %H:%M:%S", time.localtime(until))
        click.echo(f"paused: {what} {end}")
    if not kept:
        click.echo("nothing is paused")
