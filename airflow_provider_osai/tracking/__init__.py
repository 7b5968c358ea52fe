"""Writes trainings and promotions to experiment trackers. Each tracker is an extra, imported only if it is used."""
