"""The files of a run: its record, its lock, its metrics, its inspection."""
