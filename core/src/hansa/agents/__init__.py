"""Agents as they are read: names, serving revisions and the history of revisions. Writing them is `hansa.apply`'s."""
