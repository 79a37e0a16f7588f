"""Cocoon itself: its export and import archives, and its root directory (epoch-formats 5)."""
