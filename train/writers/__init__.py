"""Writers of metrics other than metrics.jsonl, named after their files.

Each file has one function of its own name, NAME(workdir, config, **settings),
which returns a parts.writer.Writer and opens nothing before its `start`.
"""
