"""The benchmark behind tools/bench: subjects (what forwards), figures (what is measured), and a table of ratios."""
