"""State, and nothing else: each table takes `now` (seconds, monotonic) as an argument, is bounded, and counts what it refuses.

Tables know nothing of ports or frames; whatever they point to is a type parameter or a plain object handed in.
"""
