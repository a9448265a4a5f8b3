"""The catalog's own datasets and validators."""
