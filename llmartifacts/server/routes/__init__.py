"""What each route does, by subject. Importing this registers every handler."""
