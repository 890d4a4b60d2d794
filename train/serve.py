"""A server of a trained model: `python -m train.serve --workdir=…`.

It speaks OpenAI's protocol: /v1/completions, /v1/chat/completions, /v1/models;
at / is a page to talk to the model. It is bound to this machine alone unless
--host says otherwise; then set a key. SIGTERM and Ctrl-C end it when what runs
has been answered.

  curl http://127.0.0.1:8000/v1/chat/completions \
    -H 'Content-Type: application/json' \
    -d '{"messages": [{"role": "user", "content": "Hello"}]}'
"""

import os
import signal
import sys
import threading

from absl import flags

from common import cli

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Where the run lives.", required=True)
cli.define_step()
flags.DEFINE_string(
  "template",
  None,
  "chatml, llama3 or plain; by default what the run was fine-tuned with, or "
  "plain.",
)
flags.DEFINE_string("name", None, "Of the model; by default the workdir's.")
flags.DEFINE_string("host", "127.0.0.1", "The address to listen at.")
flags.DEFINE_integer(
  "port", 8000, "The port; 0 for any that is free.", 0, 65535
)
flags.DEFINE_string(
  "api_key_file",
  None,
  "A file of the key that requests must carry; or set TESSERA_API_KEY.",
)
flags.DEFINE_string(
  "allow_origin", None, "Of another site whose pages may ask; none by default."
)
flags.DEFINE_integer("batch", 16, "Texts written at once.", 1, 1024)
flags.DEFINE_integer("max_waiting", 64, "Texts that wait, then 503.", 0)
flags.DEFINE_integer("max_tokens", 1024, "That a request may ask for.", 1)
flags.DEFINE_integer("max_prompt_tokens", 8192, "Of a prompt.", 1)
flags.DEFINE_integer("max_body_bytes", 2**20, "Of a request, then 413.", 1)
flags.DEFINE_integer("requests_per_minute", 120, "Of one address, then 429.", 1)
flags.DEFINE_float(
  "grace", 60.0, "Seconds for what runs at the end of the server.", 0.0
)


def main(argv) -> None:
  """Serves until it is told to end."""
  del argv
  key = _key()
  cli.start_jax()
  from train import trained
  from train.generation import replies
  from train.serving import answering, batching, limits, web

  ended = threading.Event()
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, _ender(ended))
  allowed = limits.Limits(
    prompt_tokens=FLAGS.max_prompt_tokens,
    max_tokens=FLAGS.max_tokens,
    batch=FLAGS.batch,
    rows=min(limits.Limits().rows, max(FLAGS.max_waiting, 1)),
    waiting=FLAGS.max_waiting,
    requests_per_minute=FLAGS.requests_per_minute,
    body_bytes=FLAGS.max_body_bytes,
  )
  speaker = replies.speaker(
    trained.load(FLAGS.workdir, FLAGS.step), FLAGS.template
  )
  engine = batching.Engine(speaker, FLAGS.batch, FLAGS.max_waiting, _warn)
  name = FLAGS.name or os.path.basename(os.path.abspath(FLAGS.workdir))
  answers = answering.Answering(speaker, engine, allowed, name)
  service = web.Service(
    answers.answer, answers.models, allowed, key, FLAGS.allow_origin
  )
  try:
    server = web.Server(FLAGS.host, FLAGS.port, service)
  except OSError as error:
    raise cli.UserError(
      f"--host={FLAGS.host} --port={FLAGS.port}: {error.strerror or error}"
    ) from error
  if not server.loopback and key is None:
    _warn(
      f"warning: whoever reaches {FLAGS.host} may use this model: no key is"
      " set (--api_key_file)"
    )
  host = f"[{FLAGS.host}]" if ":" in FLAGS.host else FLAGS.host
  print(f"{name} at http://{host}:{server.server_address[1]}", flush=True)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  while not ended.wait(1.0):  # a wait without end would hold signals back
    pass
  server.shutdown()
  written = engine.close(FLAGS.grace)
  sent = server.wait_until_idle(5.0)
  server.server_close()
  if not (written and sent):
    _warn(f"some answers were not finished in --grace={FLAGS.grace:g} seconds")
  sys.stdout.flush()
  # Threads of connections hold arrays, or wait for them: Python aborts where it
  # ends while one of them lets go.
  os._exit(0)


def _ender(ended: threading.Event):
  """A signal's handler: the first ends gracefully, the second at once."""

  def end(number, frame) -> None:
    del frame
    if ended.is_set():
      os._exit(128 + number)
    ended.set()

  return end


def _key() -> str | None:
  """The key that requests must carry, or None.

  Raises:
    UserError: its file cannot be read, or holds none.
  """
  path = FLAGS.api_key_file
  if path is None:
    return os.environ.get("TESSERA_API_KEY", "").strip() or None
  try:
    with open(path, encoding="utf-8") as file:
      key = file.read(4096).strip()
  except (OSError, ValueError) as error:
    reason = getattr(error, "strerror", None) or "is no text"
    raise cli.UserError(f"--api_key_file={path}: {reason}") from error
  if not key:
    raise cli.UserError(f"--api_key_file={path}: holds no key")
  return key


def _warn(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
  sys.exit(cli.run(main))
