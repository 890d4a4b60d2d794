"""Models of graphs, such as knowledge graphs."""
