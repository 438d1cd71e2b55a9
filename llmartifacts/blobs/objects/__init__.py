"""The parts of the object store driver: its address, credentials, failures and reading; none of them knows obstore."""
