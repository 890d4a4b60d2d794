"""Text in lower case."""

from input_pipeline.document import Document, Stage


def lowercase() -> Stage:
  """A stage that lower-cases the text by Unicode's language-neutral rules.

  For classical models and uncased ones. Scripts without case do not change.
  """
  return _lower


def _lower(document: Document) -> Document:
  return document._replace(text=document.text.lower())
