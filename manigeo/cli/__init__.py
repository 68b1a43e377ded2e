"""The command line: one file a family of commands, each parses, calls and writes. Nothing heavy is imported before a
command runs."""
