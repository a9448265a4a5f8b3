"""The posterior over images given what was observed: samples, bounds, summaries, control, checks."""
