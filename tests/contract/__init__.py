"""One suite over every store: what the ports of ``epoch_oci.stores.base`` promise, kept by all of them alike."""
