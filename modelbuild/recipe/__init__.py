"""Recipes: text → nodes with positions → schema check → resolved models."""
