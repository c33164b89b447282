"""The training client: a Flower ClientApp behind PEMN's own gRPC link."""
