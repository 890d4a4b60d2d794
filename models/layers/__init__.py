"""The parts that several networks share, and how activations are sharded."""
