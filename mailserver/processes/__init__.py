"""Small processes beside the server, those that keep the privileges among them."""
