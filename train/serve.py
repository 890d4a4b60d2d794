r"""Serves a trained model over HTTP: `python -m train.serve --workdir=…`.

The server implements OpenAI's protocol at /v1/completions,
/v1/chat/completions and /v1/models, and shows a chat page at /. By default it
listens on 127.0.0.1, which only this machine can reach. Set an API key before
you pass another --host. On SIGTERM or Ctrl-C the server finishes the requests
that it has accepted, and exits; a second signal exits at once.

  curl http://127.0.0.1:8000/v1/chat/completions \
    -H 'Content-Type: application/json' \
    -d '{"messages": [{"role": "user", "content": "Hello"}]}'

A run that reads pictures is served at /v1/images instead, with a page at / that
a picture can be dropped on. The answer is the JSON of train.predict.

  curl http://127.0.0.1:8000/v1/images -H 'Content-Type: application/json' \
    -d "{\"image\": \"$(base64 -w0 photo.jpg)\"}"
"""

import os
import signal
import sys
import threading
import time

from absl import flags

from common import cli

# The most tokens that one call generates for each text.
_CHUNK = 16

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "The directory of the run.", required=True)
cli.define_step()
flags.DEFINE_string(
  "template",
  None,
  "The chat template: chatml, llama3, plain, or own, which is that of the"
  " folder that the run was converted from. Default: the one that the run was"
  " fine-tuned with, or else own if there is one, or else plain.",
)
flags.DEFINE_string(
  "name",
  None,
  "The model's name in requests and answers. Default: the name of the workdir.",
)
flags.DEFINE_string(
  "host",
  "127.0.0.1",
  "The address to listen on. 0.0.0.0 listens on all IPv4 addresses, :: on all"
  " addresses.",
)
flags.DEFINE_integer(
  "port",
  8000,
  "The TCP port to listen on. 0 chooses a free port, which is printed.",
  0,
  65535,
)
flags.DEFINE_string(
  "api_key_file",
  None,
  "A file that contains the API key, which requests must carry as"
  " 'Authorization: Bearer KEY'. Default: the environment variable"
  " TESSERA_API_KEY, or no key if it is not set.",
)
flags.DEFINE_string(
  "allow_origin",
  None,
  "The origin of another web site, such as https://chat.example, whose pages"
  " may use the server. Default: none.",
)
flags.DEFINE_integer(
  "batch", 16, "The most texts that are generated at the same time.", 1, 1024
)
flags.DEFINE_integer(
  "max_waiting",
  64,
  "The most texts that wait in the queue. Further requests are answered with"
  " status 503.",
  0,
)
flags.DEFINE_integer(
  "max_rows",
  8,
  "The most texts of one request, that is, its prompts times n.",
  1,
)
flags.DEFINE_integer(
  "max_tokens",
  1024,
  "The largest max_tokens that a request may ask for, in tokens.",
  1,
)
flags.DEFINE_integer(
  "max_prompt_tokens", 8192, "The length limit of a prompt, in tokens.", 1
)
flags.DEFINE_integer(
  "max_body_bytes",
  None,
  "The size limit of a request's body, in bytes. Larger ones are answered with"
  " status 413. Default: 1 MiB for texts, 16 MiB for pictures.",
  1,
)
flags.DEFINE_integer(
  "max_pixels",
  2**25,
  "The most pixels of a picture, which take about ten bytes of memory each."
  " Larger ones are answered with status 413.",
  1,
)
flags.DEFINE_integer(
  "requests_per_minute",
  120,
  "The most requests per minute from one client address. Further requests are"
  " answered with status 429.",
  1,
)
flags.DEFINE_float(
  "grace",
  60.0,
  "The time to finish accepted requests when the server exits, in seconds.",
  0.0,
)


def main(argv) -> None:
  """Serves until a signal arrives."""
  del argv
  key = _key()
  server = _library()
  cli.start_jax()
  # The thread that generates would wait up to 5 ms for that which sends.
  sys.setswitchinterval(0.0005)
  from train import trained
  from train.prediction.parts import preparation
  from train.serving import limits

  ended = threading.Event()
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, _ender(ended))
  allowed = limits.Limits(
    prompt_tokens=FLAGS.max_prompt_tokens,
    max_tokens=FLAGS.max_tokens,
    batch=FLAGS.batch,
    rows=min(FLAGS.max_rows, max(FLAGS.max_waiting, 1)),
    waiting=FLAGS.max_waiting,
    requests_per_minute=FLAGS.requests_per_minute,
    body_bytes=FLAGS.max_body_bytes or 2**20,
    pixels=FLAGS.max_pixels,
  )
  _listening(server.listening).close()  # before the minutes of a large model
  found = trained.load(FLAGS.workdir, FLAGS.step)
  name = FLAGS.name or os.path.basename(os.path.abspath(FLAGS.workdir))
  ready = preparation.of_any_picture(found)
  if ready is None:
    engine, service = _of_texts(found, allowed, name, key)
  else:
    allowed = allowed._replace(body_bytes=FLAGS.max_body_bytes or 2**24)
    engine, service = _of_pictures(found, ready, allowed, name, key)
  running = _listening(server.Server, service)
  _serve(running, engine, ended, name, key)


def _of_texts(found, allowed, name: str, key):
  """Returns (the engine, the web.Service) of a run that generates texts."""
  from train.generation import replies
  from train.serving import answering, batching, web

  speaker = replies.speaker(found, FLAGS.template)
  _warn(replies.described(speaker))
  slots, scorer = _compiled(speaker, allowed)
  engine = batching.Engine(speaker, slots, FLAGS.max_waiting, _warn)
  answers = answering.Answering(speaker, engine, allowed, name, scorer)
  origin = FLAGS.allow_origin
  return engine, web.Service(
    answers.answer, answers.models, allowed, key, origin
  )


def _of_pictures(found, ready, allowed, name: str, key):
  """Returns (the engine, the web.Service) of a run that reads pictures."""
  from train.prediction.parts import single
  from train.serving import pictures, web

  if ready.note:
    _warn(ready.note)
  start = time.perf_counter()
  predict = single.Single(found, ready)
  predict.compile()
  _warn(f"compiled in {time.perf_counter() - start:.1f} s")
  engine = pictures.Pictures(predict, allowed, name)
  service = web.Service(
    engine.answer,
    engine.models,
    allowed,
    key,
    FLAGS.allow_origin,
    paths=pictures.PATHS,
    page=pictures.PAGE,
  )
  return engine, service


def _listening(listen, *args):
  """Returns listen(host, port, *args); UserError if it cannot listen there."""
  try:
    return listen(FLAGS.host, FLAGS.port, *args)
  except OSError as error:
    raise cli.UserError(
      f"--host={FLAGS.host} --port={FLAGS.port}: {error.strerror or error}"
    ) from error


def _compiled(speaker, allowed):
  """Compiles all programs, and allocates the cache of a batch.

  Returns:
    (the slots of the batch, a scoring.Scorer).

  Raises:
    UserError: there is not enough memory.
  """
  from train.generation import scoring, slot_programs, slots

  start = time.perf_counter()
  room = min(allowed.room, speaker.window or allowed.room)
  size = (
    slot_programs.cache_bytes(speaker.inference, allowed.batch, room) / 2**20
  )
  what = (
    f"a cache of {size:,.0f} MiB, for {allowed.batch} texts of at most"
    f" {room:,} tokens"
  )
  try:
    programs = slot_programs.programs(
      speaker.inference, allowed.batch, room, _CHUNK
    )
    found = slots.Slots(programs)
  except (MemoryError, RuntimeError) as error:
    if "RESOURCE_EXHAUSTED" not in str(error) and type(error) is RuntimeError:
      raise
    raise cli.UserError(
      f"there is no memory for {what}; lower --batch, --max_prompt_tokens or"
      " --max_tokens"
    ) from error
  middle, count = time.perf_counter(), len(programs.compiled)
  scorer = scoring.Scorer(speaker.found, room)
  scores = scorer.compile()
  end = time.perf_counter()
  _warn(
    f"{what}; {count} programs compiled in {middle - start:.1f} s, and {scores}"
    f" for log-probabilities in {end - middle:.1f} s"
  )
  return found, scorer


def _serve(server, engine, ended: threading.Event, name: str, key) -> None:
  """Runs the server until `ended` is set, then exits the process."""
  if not server.loopback and key is None:
    _warn(
      f"warning: anyone who can reach {FLAGS.host} may use this model, because"
      " no API key is set; set one with --api_key_file"
    )
  host = f"[{FLAGS.host}]" if ":" in FLAGS.host else FLAGS.host
  print(f"{name} at http://{host}:{server.server_address[1]}", flush=True)
  server.start()
  # A wait without a timeout would delay signals.
  while not ended.wait(1.0) and server.running():
    pass
  code = 0 if ended.is_set() else 1
  if code:
    _warn("error: the HTTP server stopped unexpectedly")
  server.stop_accepting()
  written = engine.close(FLAGS.grace)
  if not (server.join(5.0) and written):
    _warn(f"some requests were not finished within --grace={FLAGS.grace:g} s")
  sys.stdout.flush()
  # The engine's thread holds arrays: Python aborts if a thread releases one
  # while the interpreter exits.
  os._exit(code)


def _library():
  """The module train.serving.server; UserError if its libraries are missing."""
  try:
    from train.serving import server
  except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
      raise
    raise cli.UserError(
      "the server needs starlette and uvicorn: pip install -e '.[serve]'"
    ) from error
  return server


def _ender(ended: threading.Event):
  """A signal handler: the first signal sets `ended`, the second exits."""

  def end(number, frame) -> None:
    del frame
    if ended.is_set():
      os._exit(128 + number)
    ended.set()

  return end


def _key() -> str | None:
  """The API key that requests must carry, or None.

  Raises:
    UserError: the key's file cannot be read or is empty.
  """
  path = FLAGS.api_key_file
  if path is None:
    return os.environ.get("TESSERA_API_KEY", "").strip() or None
  try:
    with open(path, encoding="utf-8") as file:
      key = file.read(4096).strip()
  except (OSError, ValueError) as error:
    reason = getattr(error, "strerror", None) or "not a text file"
    raise cli.UserError(f"--api_key_file={path}: {reason}") from error
  if not key:
    raise cli.UserError(f"--api_key_file={path}: the file is empty")
  return key


def _warn(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
  sys.exit(cli.run(main))
