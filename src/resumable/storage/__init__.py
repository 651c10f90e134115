"""Where bytes live: the store protocol and its backends, the journal, locks, and what the platform can be trusted with.

This floor moves bytes and knows nothing of what they mean. Everything it raises on purpose comes from `errors`.
"""
