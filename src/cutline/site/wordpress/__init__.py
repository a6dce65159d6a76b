"""WordPress sites as a destination: reading and writing alts through the REST API."""
