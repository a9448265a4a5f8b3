"""Bytes from elsewhere, for models and data alike: downloads that resume, locks, the hub."""
