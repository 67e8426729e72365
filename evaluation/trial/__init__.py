"""A guide on trial, and the report of it."""
