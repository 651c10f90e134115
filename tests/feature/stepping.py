"""For scripts that are killed at each step: counting steps, and making methods into two of them."""

from __future__ import annotations

# `at`, which the script sets, says before which step; -1 for none.
STEPPING = """
steps = 0

def step():
    global steps
    steps += 1
    if steps == at:
        kill()

def stepping(kind, name):
    before = getattr(kind, name)
    def method(self, *given):
        step()
        before(self, *given)
        step()
    setattr(kind, name, method)
"""
