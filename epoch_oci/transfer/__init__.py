"""Moving bytes: what must move, and moving it."""
