"""Sounds: spoken words and what else can be heard."""
