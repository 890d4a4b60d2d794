"""Converts weights between Hugging Face folders and workdirs.

Each family is a file named like the model_type in config.json. It maps the
sizes in config.json to those of our config and each tensor to one of our
arrays; the same table serves both directions. The contents of a folder are not
trusted: no pickle is read, and no memory is allocated for data that the files
do not contain.
"""
