"""FEATURE lines are read as m4 reads them: quotes, dnl, wrapped lines, and all that does not switch a line off."""

import contextlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsbl_milter.mc import Feature, Unclosed, features

TREE = "include(`/usr/share/sendmail/cf/m4/cf.m4')dnl\n"

READ = [
    # what it shows, the text, each feature as line, name, arguments
    ("nothing", "", []),
    ("bare words", "FEATURE(dnsbl)", [(1, "dnsbl", [])]),
    ("as the recipe has it", "FEATURE(dnsbl, `bl.example', `Refused - see http://bl.example/? $&{client_addr}')dnl",
     [(1, "dnsbl", ["bl.example", "Refused - see http://bl.example/? $&{client_addr}"])]),
    ("as the manual has it", "FEATURE(`dnsbl', `bl.example')dnl", [(1, "dnsbl", ["bl.example"])]),
    ("a blank behind dnl", "FEATURE(dnsbl, `bl.example')dnl \nFEATURE(x)", [(1, "dnsbl", ["bl.example"]), (2, "x", [])]),
    ("quotes in quotes", "FEATURE(`dnsbl', ``bl.example'', ```\"550 no\"''')", [(1, "dnsbl", ["bl.example", '"550 no"'])]),
    ("half in quotes", "FEATURE(`dnsbl', bl.`example')", [(1, "dnsbl", ["bl.example"])]),
    ("empty arguments", "FEATURE(`dnsbl', `a.example', , `t')", [(1, "dnsbl", ["a.example", "", "t"])]),
    ("empty quotes", "FEATURE(`dnsbl', `a.example', `', `t',)", [(1, "dnsbl", ["a.example", "", "t", ""])]),
    ("wrapped", "FEATURE(`enhdnsbl',\n\t`a.example',\n\n  `\"550 no\"',\n`t')", [(1, "enhdnsbl", ["a.example", '"550 no"', "t"])]),
    ("wrapped in quotes", "FEATURE(`dnsbl', `a.example', `550\n  no')", [(1, "dnsbl", ["a.example", "550 no"])]),
    ("a comma in quotes", "FEATURE(`dnsbl', `a.example', `no, no')", [(1, "dnsbl", ["a.example", "no, no"])]),
    ("a comma in parentheses", "FEATURE(`dnsbl', a.example, (no, no))", [(1, "dnsbl", ["a.example", "(no, no)"])]),
    ("parentheses in quotes", "FEATURE(`dnsbl', `a.example', `:-)')", [(1, "dnsbl", ["a.example", ":-)"])]),
    ("dnl among arguments", "FEATURE(`dnsbl', dnl it's the first\n`a.example')", [(1, "dnsbl", ["a.example"])]),
    ("dnl in quotes", "FEATURE(`dnsbl', `a.example', `dnl no')", [(1, "dnsbl", ["a.example", "dnl no"])]),
    ("behind dnl", "dnl FEATURE(`dnsbl', `a.example')\nFEATURE(`x')", [(2, "x", [])]),
    ("behind dnl in a line", "VERSIONID(`x')dnl FEATURE(`dnsbl', `a.example')", []),
    ("behind words that begin as dnl does", "dnls FEATURE(`x')", [(1, "x", [])]),
    ("behind #", "#FEATURE(`dnsbl', `a.example')", [(1, "dnsbl", ["a.example"])]),
    ("behind #dnl", "#dnl FEATURE(`dnsbl', `a.example')", []),
    ("behind divert", "divert(-1)\nFEATURE(`dnsbl', `a.example')\ndivert(0)", [(2, "dnsbl", ["a.example"])]),
    ("two in a line", "FEATURE(`x')FEATURE(`y')", [(1, "x", []), (1, "y", [])]),
    ("a blank before the parenthesis", "FEATURE (`dnsbl', `a.example')", []),
    ("a longer word", "MY_FEATURE(`dnsbl', `a.example')", []),
    ("a word behind a digit", "9FEATURE(`x')", [(1, "x", [])]),
    ("among the arguments of another", "ifdef(`X', FEATURE(`dnsbl', `a.example'))", [(1, "dnsbl", ["a.example"])]),
    ("other quotes", "changequote([, ])FEATURE([dnsbl], [a.example])changequote(`, ')", [(1, "dnsbl", ["a.example"])]),
    ("quotes put back", "changequote([, ])changequote`'FEATURE(`x')", [(1, "x", [])]),
    ("a lone quote", "it's\nFEATURE(`x')", [(2, "x", [])]),
    ("carriage returns", "FEATURE(`dnsbl', `a.example')dnl\r\nFEATURE(`x')\r\n", [(1, "dnsbl", ["a.example"]), (2, "x", [])]),
    ("before the tree, it is text", "FEATURE(`x')\n" + TREE + "FEATURE(`y')", [(3, "y", [])]),
    ("before the tree, # is a comment", "# don't, `\n" + TREE + "FEATURE(`y')", [(3, "y", [])]),
    ("behind the tree, # is none", TREE + "#FEATURE(`y')", [(2, "y", [])]),
    ("a quote behind # that closes", "#it `\n'FEATURE(`y')", [(2, "y", [])]),
    ("a tree behind dnl", "FEATURE(`x')\ndnl " + TREE, [(1, "x", [])]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "found"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_features_are_read(text, found):
    assert features(text) == tuple(Feature(line, name, tuple(arguments)) for line, name, arguments in found)


@pytest.mark.parametrize("text", ["ifdef(`X', `FEATURE(`dnsbl', `a.example')')", "define(`X',\n``FEATURE(dnsbl, a.example)'')"])
def test_what_stands_in_quotes_depends_on_somebody_else(text):
    (found,) = features(text)
    assert (found.name, found.arguments, found.conditional) == ("dnsbl", ("a.example",), True)


def test_a_line_is_that_of_the_word_in_quotes_too():
    (found,) = features("\nifdef(`X',\n`\nFEATURE(`dnsbl', `a.example')')")
    assert found.line == 4


def test_arguments_are_counted_from_one():
    (found,) = features("FEATURE(`dnsbl', `a.example')")
    assert [found.argument(number) for number in (1, 2, 3)] == ["a.example", "", ""]


@pytest.mark.parametrize(("text", "message"), [
    ("\nFEATURE(`dnsbl', `a.example", "line 2: the quote that opens here is never closed"),
    ("FEATURE(`dnsbl',\n `a.example'", "line 1: the parenthesis that opens here is never closed"),
    ("\n\ndefine(`x', `y", "line 3: the quote that opens here is never closed"),
])  # fmt: skip
def test_what_is_never_closed_is_told(text, message):
    with pytest.raises(Unclosed, match=message):
        features(text)


@given(st.text(alphabet="`'(),#\n dnlFEATURE[]changequote"))
def test_any_text_is_read_or_found_unclosed(text):
    with contextlib.suppress(Unclosed):
        features(text)


# Under other quotes Sendmail's own macros cannot be called, nor can the judge.
JUDGED = [row[:2] for row in READ if "include" not in row[1] and "FEATURE([" not in row[1]]


@pytest.mark.parametrize("text", [row[1] for row in JUDGED], ids=[row[0] for row in JUDGED])
def test_m4_reads_the_same(text, tmp_path: Path):
    # As cfhead.m4 does: no comments, and a FEATURE that hands its arguments on before it tells them.
    macros = tmp_path / "judge.m4"
    macros.write_text(
        "changecom()define(`FEATURE', `ifelse(`$#', `0', `', `define(`_ARG_', `$2')errprint(`called|$1|'_ARG_`\n')')')dnl\n"
    )
    file = tmp_path / "given.mc"
    file.write_text(text, newline="")
    done = subprocess.run(["m4", macros, file], capture_output=True, text=True, check=True)
    told = [tuple(line.split("|")[1:]) for line in done.stderr.splitlines() if line.startswith("called|")]
    assert told == [(found.name, found.argument(1)) for found in features(text)]
