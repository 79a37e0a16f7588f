"""Files in chunks: cutting, packs, index, reading at any offset (docs/format.md, chapter 7). No network, no disk."""
