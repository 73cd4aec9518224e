"""The recipes, one JSON file each; installed as the package autoseg.plans."""
