"""The verbs, one file each, and nothing else. They see ports, never a concrete store."""
