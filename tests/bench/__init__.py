"""Benchmarks, and campaigns that take longer than a test may."""
