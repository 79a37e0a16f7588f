"""What Epoch says: manifests, the catalog, media types, keys, and JSON as Go writes it."""
