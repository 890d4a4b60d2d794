"""Text in lower case."""

from input_pipeline.document import Document, Stage


def lowercase() -> Stage:
  """A stage that lower-cases the text, by Unicode's rules of no one language.

  For classical tasks, and for uncased models; scripts without case are left.
  """
  return _lower


def _lower(document: Document) -> Document:
  return document._replace(text=document.text.lower())
