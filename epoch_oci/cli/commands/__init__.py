"""The verbs: each reads its words, calls one flow and hands the result to be shown."""

# All modules here are loaded for --help and for completion: so a verb imports what does its work when it runs.
