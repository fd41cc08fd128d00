"""The one place where type names, predicates, URIs and splits become Arrow objects."""
