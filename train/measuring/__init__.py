"""Where time, FLOPs and energy of a run go."""
