"""The calls of the API, by what they are about: one method for each operation of its OpenAPI document."""
