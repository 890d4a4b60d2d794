"""Weights of Hugging Face's folders and ours, read and written by one table.

A family is a file, named as config.json's model_type: it says which sizes of
the two configs mean the same, and which tensor is which of our arrays, laid out
how. What stands in a folder is hostile until it is checked: no pickle is read,
and no memory is taken for what the files do not hold.
"""
