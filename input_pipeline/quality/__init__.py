"""The checks of `judge`: a name in --checks is a file here."""
