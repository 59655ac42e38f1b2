"""Jobs: their states, their events, and running them so that none is lost or run twice over."""
