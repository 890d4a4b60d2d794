"""What the data sets share: downloads, archives, text and image formats."""
