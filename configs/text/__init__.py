"""Classification, tagging, questions, translation, word vectors and chat."""
