"""A pytest plugin for tests of users' Dags. Nothing that a Dag imports belongs here."""
