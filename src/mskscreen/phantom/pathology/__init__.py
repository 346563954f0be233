"""Abnormalities: functions that take a patient in a pose and a site, and return the edited scene and its facts."""
