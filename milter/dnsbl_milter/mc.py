"""The FEATURE lines of a Sendmail .mc file.

Floor 2: standard library only; pure text. Read as m4 reads: quotes nest, `dnl` drops the rest of a line, arguments
may be wrapped, and what `divert(-1)` hides is hidden from the output only. Nothing is expanded, for m4 may run
commands and include files that are not here; what depends on a condition is told as such.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_BLANK = re.compile(r"\s*")
_REST_OF_LINE = re.compile(r"[^\n]*\n?")
_TREE = "cf.m4"
"""Ends the name of the file that defines FEATURE, and that takes from `#` its meaning as a comment."""
_QUOTES = ("`", "'")


@dataclass(frozen=True, slots=True)
class Feature:
    """One FEATURE, its arguments without their quotes."""

    line: int
    name: str
    arguments: tuple[str, ...]
    """What follows the name; m4 counts the first of them as its second."""
    conditional: bool = False
    """It stands in a quoted text, which another macro may or may not bring out."""

    def argument(self, number: int) -> str:
        """Return an argument by number, from 1; empty where there is none."""
        return self.arguments[number - 1] if number <= len(self.arguments) else ""


class Unclosed(ValueError):
    """A quote or a parenthesis that is open at the end of the file: m4 cannot read it either."""


def features(text: str) -> tuple[Feature, ...]:
    """Return every FEATURE in the order of the file. Raises `Unclosed`."""
    scanner = _Scanner(text, ready=False)
    try:
        found = tuple(scanner.features())
    except Unclosed:
        if scanner.ready:
            raise
    # A file without the include is read by `m4 .../cf.m4 FILE.mc`, so all of it counts.
    return found if scanner.ready else tuple(_Scanner(text, ready=True).features())


class _Scanner:
    """A place in a text, and the quotes in force there."""

    def __init__(self, text: str, *, ready: bool, line: int = 1, quotes: tuple[str, str] = _QUOTES) -> None:
        self._text = text
        self._at = 0
        self._first_line = line
        self._quotes = quotes
        self.ready = ready
        """FEATURE is defined, and `#` is no comment any more."""

    def features(self, *, conditional: bool = False) -> Iterator[Feature]:
        while self._at < len(self._text):
            if self._starts(self._quotes[0]):
                line = self._line()
                inner = _Scanner(self._quoted(), ready=self.ready, line=line, quotes=self._quotes)
                yield from inner.features(conditional=True)
            elif not self.ready and self._starts("#"):
                self._skip(_REST_OF_LINE)
            elif word := _WORD.match(self._text, self._at):
                yield from self._word(word.group(), conditional=conditional)
            else:
                self._at += 1

    def _word(self, word: str, *, conditional: bool) -> Iterator[Feature]:
        line = self._line()
        self._at += len(word)
        # m4 takes a parenthesis for arguments only where it follows at once.
        called = self._starts("(")
        if word == "dnl":
            self._skip(_REST_OF_LINE)
        elif word == "changequote":
            given = self._arguments() if called else []
            self._quotes = (given[0], given[1]) if len(given) == 2 and all(given) else _QUOTES
        elif word in ("include", "sinclude") and called:
            self.ready |= any(argument.endswith(_TREE) for argument in self._arguments())
        elif word == "FEATURE" and called and self.ready:
            name, *arguments = self._arguments()
            yield Feature(line, name, tuple(arguments), conditional)

    def _arguments(self) -> list[str]:
        """Take the arguments of a call, and the parentheses around them."""
        line = self._line()
        self._at += 1
        arguments = [""]
        depth = 0
        self._skip(_BLANK)
        while self._at < len(self._text):
            word = _WORD.match(self._text, self._at)
            if self._starts(self._quotes[0]):
                arguments[-1] += self._quoted()
                continue
            if word and word.group() == "dnl":
                self._skip(_REST_OF_LINE)
                continue
            taken = word.group() if word else self._text[self._at]
            self._at += len(taken)
            if taken == "," and not depth:
                arguments.append("")
                self._skip(_BLANK)
                continue
            if taken == ")" and not depth:
                return [self._bare(argument) for argument in arguments]
            depth += (taken == "(") - (taken == ")")
            arguments[-1] += taken
        raise Unclosed(f"line {line}: the parenthesis that opens here is never closed")

    def _quoted(self) -> str:
        """Take a quoted text, and return what is inside its outermost quotes."""
        line = self._line()
        opening, closing = self._quotes
        self._at += len(opening)
        start, depth = self._at, 1
        while self._at < len(self._text):
            if self._starts(closing):
                depth -= 1
                self._at += len(closing)
                if not depth:
                    return self._text[start : self._at - len(closing)]
            elif self._starts(opening):
                depth += 1
                self._at += len(opening)
            else:
                self._at += 1
        raise Unclosed(f"line {line}: the quote that opens here is never closed")

    def _bare(self, argument: str) -> str:
        # FEATURE hands its arguments on, and each time m4 takes a pair of quotes off.
        opening, closing = self._quotes
        return " ".join(argument.replace(opening, "").replace(closing, "").split())

    def _starts(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if found := pattern.match(self._text, self._at):
            self._at = found.end()

    def _line(self) -> int:
        return self._first_line + self._text.count("\n", 0, self._at)
