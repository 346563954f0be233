"""Explanations of a model made and measured: the rooms that hold maps, engines and statistics brought together."""
