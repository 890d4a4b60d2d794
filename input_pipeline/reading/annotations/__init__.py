"""Formats of annotations of pictures: boxes, outlines and classes."""
