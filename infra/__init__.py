"""The ground floor: settings, table schemas, object store, artifacts, releases, key-value stores, errors.

Imports nothing else of the project.
"""
