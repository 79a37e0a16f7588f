"""The verbs: each reads its words, calls one flow and hands the result to be shown."""
