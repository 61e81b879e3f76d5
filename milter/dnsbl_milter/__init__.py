"""dnsbl-milter: weighs what several DNS lists say about a client, and answers with a graded action.

The shell around `dnsbl_policy`: sockets, processes, files and libraries, each library in one module.
"""

__version__ = "0.1.0"
