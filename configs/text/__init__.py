"""Text classified, tagged, questioned, translated; word vectors; chat."""
