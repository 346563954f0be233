"""Validation by readers: blinded packs of cases, and the statistics of the forms that come back."""
