"""The report of a release: its content, its plots, its page, and how the command line shows it."""
