"""Files of this machine: written whole or not at all, opened without following a link, locked where others may be."""
