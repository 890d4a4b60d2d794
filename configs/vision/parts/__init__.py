"""Sections that several configs of images share."""
