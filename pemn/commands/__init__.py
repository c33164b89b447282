"""What the subcommands of `pemn` do; they alone bring the edges of the library together."""
