"""Prompts: text or chat templates in Jinja2, f-string or Mustache, with all that changes what they do."""
