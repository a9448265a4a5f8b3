"""The Kedro application: pipelines around the library `condvae`."""

__version__ = "0.1.0"
