"""Benchmarks that need a GPU, and the compiled networks that they and the tests run."""
