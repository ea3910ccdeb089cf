"""Hearth's server: what makes a recipe real. See the handbook's page on how it is built for the rooms and their order."""
