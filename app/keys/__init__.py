"""API keys: who may do what. A key is shown once, when it is made; only its HMAC is kept.

`form` is how a key is written, `secret` what its HMAC is made with, `store` keeps keys in the database and checks those
that requests bring. A browser shows a key once: `sessions` is what it has from then on, `attempts` how often it may be
wrong.
"""
