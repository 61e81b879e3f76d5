"""A real mail host, made of Sendmail, rbldnsd and unbound, to test and to demonstrate on.

It is started inside `contrib/enclosed` only, where it owns port 25, port 53 and
/dev/log, and where the documentation addresses of RFC 5737 and RFC 3849 are local.
"""
