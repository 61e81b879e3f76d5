"""The documents keep up with the code: every command, key, metric and reason is in the README, and its examples load."""

import re
from pathlib import Path

import click
import pytest

from dnsbl_milter import configuration, metrics, settings, watch
from dnsbl_milter.board import facts
from dnsbl_milter.cli import main
from dnsbl_milter.standing import Standing
from dnsbl_policy.answers import Why

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"^ *```toml\n(.*?)^ *```", README, re.MULTILINE | re.DOTALL)


def commands(group, words=()):
    """Return every command as it is typed."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


def keys():
    """Return every key of the file by its path; those of a list by their name alone."""
    for section, field in settings.Settings.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, settings.Section):
            yield from ((section, key) for key in model.model_fields)
    yield from (("list", key) for key in settings.ListSection.model_fields)


def documented_metrics():
    return set(re.findall(r"^\| `(dnsbl_\w+)`", README, re.MULTILINE))


@pytest.mark.parametrize(("words", "command"), list(commands(main)), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_is_documented_and_has_help(words, command):
    assert command.help
    assert all(parameter.help for parameter in command.params if isinstance(parameter, click.Option))
    assert words in README


@pytest.mark.parametrize(("section", "key"), list(keys()))
def test_every_key_is_documented(section, key):
    written = rf"`{section}\.{key}`" if section != "list" else rf"^\| .*`{key}`"
    assert re.search(written, README, re.MULTILINE) or (section == "actions" and f"`.{key}`" in README)


def test_every_metric_is_documented_and_every_documented_metric_exists(tmp_path):
    loaded = configuration.parse(EXAMPLES[-1], "README.md")
    counted = metrics.Metrics(loaded.policy.lists)._registry.collect()
    watched = watch.Watch(loaded, facts(), Standing(loaded.policy.lists), tmp_path).gauges()
    names = {metric.name + "_total" * (metric.type == "counter") for metric in counted}
    names |= {f"dnsbl_{gauge.name}" + "_total" * gauge.counter for gauge in watched}
    assert names == documented_metrics()


@pytest.mark.parametrize("why", list(Why))
def test_every_reason_of_silence_is_documented(why):
    assert re.search(rf"^\|.*`{why}`", README, re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_every_example_loads(example):
    loaded = configuration.parse(example, "README.md")
    assert loaded.policy.lists
    # The files that an example names are on the host of whoever reads it.
    assert [each for each in loaded.warnings if "No such file" not in each] == []


def test_there_are_examples():
    assert len(EXAMPLES) >= 2
