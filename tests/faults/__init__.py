"""What the client does when the peer or the network misbehaves: real sockets, one table of cases, one report of each."""
