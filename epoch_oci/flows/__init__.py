"""The verbs, and nothing else; a form that goes another way has its own file. They see ports, and no store."""
