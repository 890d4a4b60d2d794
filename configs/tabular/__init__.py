"""Tables: a class or a number from the columns of a row."""
