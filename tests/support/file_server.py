"""A local HTTP server of files, with the faults of real ones; no test."""

import contextlib
import http.server
import threading


class Files:
  """What the server has and does.

  content: {path: bytes}; any other path is answered with 404.
  cut: how many bytes of the next answer are sent, or None for all.
  hold: an event that is waited for before the end of an answer, or None.
  ranges: whether Range is understood.
  asked: (path, Range header or None) of each request.
  """

  def __init__(self):
    self.content: dict[str, bytes] = {}
    self.cut: int | None = None
    self.hold: threading.Event | None = None
    self.ranges = True
    self.asked: list[tuple[str, str | None]] = []
    self.url = ""


@contextlib.contextmanager
def serving():
  """Yields the Files of a server on this machine; its address is `url`."""
  files = Files()

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      asked = self.headers.get("Range")
      files.asked.append((self.path, asked))
      content = files.content.get(self.path)
      if content is None:
        self.send_error(404)
        return
      start = int(asked[6:-1]) if asked and files.ranges else 0
      self.send_response(206 if start else 200)
      if start:
        end = len(content)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
      self.send_header("Content-Length", str(len(content) - start))
      self.end_headers()
      end = None if files.cut is None else start + files.cut
      files.cut = None
      self.wfile.write(content[start:end])
      if files.hold is not None:
        files.hold.wait(60)

    def log_message(self, *_):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  files.url = f"http://127.0.0.1:{server.server_address[1]}"
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield files
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
