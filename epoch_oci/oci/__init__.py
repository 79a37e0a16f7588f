"""What OCI says: values and pure functions."""
