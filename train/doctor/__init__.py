"""Checks whether this machine can run Tessera: `python -m train.doctor`."""
