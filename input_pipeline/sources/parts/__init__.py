"""Functions that several sources share."""
