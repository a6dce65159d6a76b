"""WordPress sites: reading and writing alts through the REST API."""
