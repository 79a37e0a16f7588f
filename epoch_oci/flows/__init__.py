"""The verbs, one file each. They see ports, never a concrete store."""
