"""Telling URLs of the tenant what has happened: endpoints, events, and their delivery."""
