"""How the product looks to people: colours, type, name and mark, the same for every page of the service."""
