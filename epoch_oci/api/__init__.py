"""The verbs for those who use the library: words in, one report out.

Each opens what its words mean (`epoch_oci.location` has the grammar) and calls the verb of the same name in
`epoch_oci.flows` or `epoch_oci.bulk`, which works on stores that are open already. Nothing is printed, nobody is
prompted; `on_event` hears how far it has come, and what it raises ends the verb. Raised are the exceptions of
`epoch_oci.errors`: UsageError for words that mean nothing and for wrong options, before anything is opened.
"""
