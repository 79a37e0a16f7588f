"""Pure functions between Epoch's words and OCI's."""
