"""Bytes from elsewhere: connections that keep to a limit of time and bytes, and the places that content is read from.

No URL of others is fetched by any other way than `web.py`: it looks at the address of whom it speaks to.
"""
