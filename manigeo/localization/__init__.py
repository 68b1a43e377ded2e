"""Localization of memorization: profiles over depth, evidence of every method, and the statement made of it."""
