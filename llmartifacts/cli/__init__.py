"""The command line: one file per noun, over the same `Registry` that Python uses.

main     builds the app, runs it, and turns whatever was raised into one message and one exit code
command  how a command is declared: its panel, examples, JSON shape, and the options that are accepted everywhere
context  the session of one call: global options, the registry, the output
output   text for people or one JSON document; tables, colours, escaping
"""
