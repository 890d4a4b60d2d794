"""A server of a trained model in this process; no test of its own."""

import contextlib
import threading

from train.serving import answering, batching, limits, web


@contextlib.contextmanager
def serving(speaker, key=None, origin=None, **given):
  """A server of the speaker; yields it, with `said` of what it logged."""
  allowed = limits.Limits(**given)
  said = []
  engine = batching.Engine(
    speaker, allowed.batch, allowed.waiting, say=said.append
  )
  answers = answering.Answering(speaker, engine, allowed, "tiny")
  service = web.Service(
    answers.answer, answers.models, allowed, key, origin, said.append
  )
  server = web.Server("127.0.0.1", 0, service)
  server.said, server.engine = said, engine
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield server
  finally:
    server.shutdown()
    server.server_close()
    assert engine.close(60)
