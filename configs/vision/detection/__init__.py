"""Boxes of objects in images, and their masks."""
