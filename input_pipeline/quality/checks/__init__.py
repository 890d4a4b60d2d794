"""The checks of `judge`: the name of a check is a file and its function here.

Each file sets ORDER, its place in the report; NEEDS, the flag without which
the check cannot run, where there is one; and COSTLY = True if the check runs
only where --checks names it. A check is a function of a Dataset and the
Settings that returns its Findings. A costly one reads the data itself: it
takes uri, split, label and output, and settings of its own, by keyword.
"""
