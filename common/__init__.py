"""What every package may import: errors, names, limits, flags."""
