"""What the DAGs of pymk share: forms, commands, tasks and alerts. Nothing here loads an engine."""
