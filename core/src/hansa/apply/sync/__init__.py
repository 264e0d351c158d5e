"""From files at a commit to objects of a control plane, and no further than they say. Knows neither Git nor HTTP.

`contents` reads files, `deletion` decides what goes, `engine` does a pass, `planning` says what a pass would do.
"""
