"""Storage: files that appear when they are whole, locks, and commits."""
