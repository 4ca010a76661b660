"""Programs that show runs, each of which is told of a method's runs once they are there: a file for
each, with `check()`, which raises ValueError where its package is missing, and
`write(workdir, runs)`, which replaces what it knew of them.
"""
