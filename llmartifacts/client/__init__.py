"""The remote backend: the whole contract of a registry through HTTP, with `requests`.

`session`  one connection pool, deadlines, retries     `backend`  the verbs
`blobs`    bytes up and down, verified                 `accounts` users, teams, grants, tokens
"""
