"""Flat key spaces that stores keep their content in."""
