"""The round as pure functions of integers: public state, dither, flips, tally, moves.

Nothing here knows a socket, a file or a clock; `pemn.methods` puts the pieces together.
"""
