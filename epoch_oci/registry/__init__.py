"""The room of ORAS: everything that speaks to a registry. No other package imports oras, requests or urllib3."""
