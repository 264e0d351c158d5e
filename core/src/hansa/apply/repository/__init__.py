"""Repositories of manifests: where they are, what they hold at a commit, who signed it. The one door to Git.

Must not know objects, kinds or the API: it gives files by path, and says clearly why it can't.
"""
