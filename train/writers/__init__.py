"""Where metrics go besides metrics.jsonl: a name in config.writers is a file.

Each file has one function of its own name, NAME(workdir, config, **settings),
which returns a parts.writer.Writer and opens nothing before its `start`.
"""
