"""A person's front door: `lastevent up | web | worker | ask | demo`. It may import all other folders; none imports it."""
