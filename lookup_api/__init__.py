"""The lookup API: a thin Flask app over the serving tables of the current release."""
