"""The server: a Flower ServerApp over PEMN's own gRPC link."""
