"""Pages rendered on the server, with plain forms; they work without JavaScript."""
