"""The stream between one server and its clients: gRPC, TLS, parts of messages and the byte meter."""
