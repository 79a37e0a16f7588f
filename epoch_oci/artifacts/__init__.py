"""What the verbs share of an artifact, over ports: read and decoded, in chunks or not, and published."""
