"""The command line: one short file for each command, imported when it is needed."""
