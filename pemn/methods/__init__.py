"""Federated methods, each a pair of frozen values: a server's half and a client's half."""
