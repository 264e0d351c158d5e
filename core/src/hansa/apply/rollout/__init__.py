"""How new revisions of agents come to serve: checked first where the object asks for it; and what is so of an agent, and why."""
