"""Layers that several networks share, and the sharding of activations."""
