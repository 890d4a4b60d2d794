"""Reports of one file: sections to HTML, figures to SVG."""
