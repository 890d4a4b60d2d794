"""The HTTP server of a trained model, which implements OpenAI's protocol.

protocol.py parses requests and formats answers, batching.py generates the
texts of all requests in one thread, and answering.py connects the two.
limits.py holds the limits, access.py decides who may send requests,
connections.py enforces the limits of one connection, web.py is the Starlette
application, server.py runs it under uvicorn, and page.html is the page at /.
"""
