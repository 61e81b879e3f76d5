"""A filter that does nothing, on pymilter, with every callback: the floor that Python sets.

nothing.py SOCKET
"""

import sys

import Milter


class Nothing(Milter.Base):
    """Carries on, whatever happens; a class without methods of its own would not even be called."""

    def connect(self, _name: str, _family: int, _address: object) -> int:
        """Carry on."""
        return int(Milter.CONTINUE)

    def hello(self, _name: str) -> int:
        """Carry on."""
        return int(Milter.CONTINUE)

    def envfrom(self, _sender: str, *_words: str) -> int:
        """Carry on."""
        return int(Milter.CONTINUE)

    def envrcpt(self, _recipient: str, *_words: str) -> int:
        """Carry on."""
        return int(Milter.CONTINUE)

    def data(self) -> int:
        """Carry on."""
        return int(Milter.CONTINUE)

    def header(self, _name: str, _value: str) -> int:
        """Carry on."""
        return int(Milter.CONTINUE)

    def eoh(self) -> int:
        """Carry on."""
        return int(Milter.CONTINUE)

    def body(self, _text: bytes) -> int:
        """Carry on."""
        return int(Milter.CONTINUE)

    def eom(self) -> int:
        """Carry on."""
        return int(Milter.CONTINUE)


Milter.factory = Nothing
Milter.runmilter("nothing", sys.argv[1])
