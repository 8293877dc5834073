"""Input that nobody would send, in numbers: requests to a real service, and files to everything that reads one.

`mutation` makes it, `targets` are the readers of files, `files` feeds them, `service` starts a service and watches it,
`requests` sends to it, `record` is what came of it, `report` writes it into docs/security.md.
"""
