"""The world of the tests: a database, a provider, people with browsers, and the gateway between.

Standard library only: the benchmark uses these parts too.
"""
