"""Experiments in control."""
