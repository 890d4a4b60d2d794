"""An HTTP server of a trained model that speaks OpenAI's protocol.

protocol.py reads what is asked and writes what is answered, batching.py runs
what waits as batches in one thread, limits.py says what is too much, web.py
speaks HTTP, and page.html is the page at /.
"""
