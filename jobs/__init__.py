"""The batch side: one thin module a stage, the `pymk` command, and pure Spark transforms."""
