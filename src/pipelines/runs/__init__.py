"""MLflow: the run of a session, what it logs, the registry of posteriors."""
