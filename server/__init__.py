"""Hearth's server: what makes a recipe real. The handbook's page on how it is built shows the rooms."""
