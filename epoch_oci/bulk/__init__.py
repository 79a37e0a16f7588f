"""Many snapshots at once: what there is, what must move, moving it, telling of it."""
