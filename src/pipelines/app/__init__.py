"""What Kedro meets first: its session and hooks, and Dagster's view of the project."""
