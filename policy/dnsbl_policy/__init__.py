"""The policy: what lists said, in; a verdict, out.

Nothing in this package touches a socket, a file, a clock, a log or a thread; times are arguments.
The whole of it can be read, tested and reasoned about without running the daemon.
"""
