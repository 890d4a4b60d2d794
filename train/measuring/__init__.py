"""What a run costs: time, FLOPs, energy; histograms of its parameters."""
