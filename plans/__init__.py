"""The recipes, one JSON file each."""
