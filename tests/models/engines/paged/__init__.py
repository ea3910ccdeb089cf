"""Tests of the paged engine over the real runtime, with small models built offline."""
