"""One run of one job: which run is meant, how it goes on, how it ends, and what can be told of it."""
