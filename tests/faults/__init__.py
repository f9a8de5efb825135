"""What the client does when the peer or the network misbehaves: real sockets, and one table of cases."""
