"""The bridge between Epoch snapshots and OCI registries."""

__version__ = "0.1.0"
