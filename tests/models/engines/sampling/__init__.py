"""Tests of what engines share that choose tokens themselves; no runtime is loaded."""
